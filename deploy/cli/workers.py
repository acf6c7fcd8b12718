"""What `--engine` and `--workers` stand for: images from anywhere, and who works on them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from resdeploy.deploy.cli.options import Scoring
from resdeploy.deploy.cli.output import note, print_json
from resdeploy.deploy.errors import EXIT_FIXABLE
from resdeploy.deploy.progress import silent
from resdeploy.deploy.specs import GPU_BACKENDS, Backend, Precision

if TYPE_CHECKING:
    from resdeploy.calibration.observe.images import CalibrationImages
    from resdeploy.deploy.cli.predict_output import Rows
    from resdeploy.deploy.images.dataset import Images
    from resdeploy.deploy.scale_out.pool import RayPool


@dataclass(frozen=True)
class Asked:
    """What `predict` is asked for."""

    bundle: Path
    images: tuple[str, ...]
    precision: Precision | Literal["auto"] | None
    backend: Backend | Literal["auto"]
    batch: int
    top: int
    min_probability: float


@contextmanager
def answered_by_cluster(asked: Asked, scoring: Scoring) -> "Iterator[Rows]":
    """What `predict` shows, with the answers of a cluster's workers."""
    from resdeploy.deploy.bundle.model import open_model
    from resdeploy.deploy.cli.predict_output import Rows
    from resdeploy.deploy.images.gather import NamedImages
    from resdeploy.deploy.scale_out.pool import cluster
    from resdeploy.deploy.scale_out.predict import predict_spread

    pool = _pool(asked, scoring)
    labels = open_model(asked.bundle).manifest.labels
    with cluster():
        answers = predict_spread(
            pool, pool.places, precision=_named(asked), backend=asked.backend,
            top=asked.top, batch=asked.batch, progress=silent,
        )  # fmt: skip
        with closing(answers):
            yield Rows(NamedImages(pool.places), answers, labels, asked.min_probability)


def written_by_cluster(asked: Asked, scoring: Scoring, place: str, *, as_json: bool) -> int:
    """Have the workers write their answers as Parquet; the exit code."""
    from resdeploy.deploy.scale_out.pool import cluster
    from resdeploy.deploy.scale_out.predict import predict_to_parquet

    if asked.min_probability:
        raise click.UsageError("--parquet writes all probabilities: leave out --min-probability")
    pool = _pool(asked, scoring)
    with cluster():
        failed = predict_to_parquet(
            pool, place, precision=_named(asked), backend=asked.backend, top=asked.top,
            batch=asked.batch,
        )  # fmt: skip
    if as_json:
        print_json({"parquet": place, "images": len(pool.places), "unreadable": failed})
    else:
        note(f"{len(pool.places)} images, {failed} of which could not be read: {place}")
    return EXIT_FIXABLE if failed else 0


def _pool(asked: Asked, scoring: Scoring) -> "RayPool":
    from resdeploy.deploy.scale_out.locations import find_locations
    from resdeploy.deploy.scale_out.pool import RayPool

    places = [location.place for location in find_locations(asked.images)]
    gpus = int(asked.backend in GPU_BACKENDS)
    return RayPool(asked.bundle, places, scoring.workers, gpus)


def _named(asked: Asked) -> Precision | None:
    if asked.precision == "auto":
        raise click.UsageError("--engine ray needs a precision: workers might differ in theirs")
    return asked.precision


@contextmanager
def verification_images(
    bundle: Path,
    data: str | None,
    backends: tuple[Backend | Literal["auto"], ...],
    scoring: Scoring,
) -> Iterator["str | Images | None"]:
    """What to verify on, with who answers it: by default this process."""
    if scoring.engine == "local":
        yield data
        return
    if data is None:
        raise click.UsageError("--engine ray needs images: add --data")
    from resdeploy.deploy.bundle.model import open_model
    from resdeploy.deploy.scale_out.locations import read_located_data
    from resdeploy.deploy.scale_out.pool import RayPool, cluster

    images, places = read_located_data(data, open_model(bundle).manifest.labels)
    gpus = int(any(backend in GPU_BACKENDS for backend in backends))
    with cluster():
        yield replace(images, workers=RayPool(bundle, places, scoring.workers, gpus))


@contextmanager
def calibration_images(
    bundle: Path, calib: str | None, images: int, seed: int, scoring: Scoring
) -> Iterator["Path | CalibrationImages | None"]:
    """The calibration images, with who measures on them: by default this process. Without any,
    nobody needs to."""
    if calib is None or scoring.engine == "local":
        yield None if calib is None else Path(calib)
        return
    from resdeploy.calibration.observe.images import balanced, chosen_images
    from resdeploy.deploy.scale_out.locations import as_files, find_locations
    from resdeploy.deploy.scale_out.pool import RayPool, cluster

    found = [(location.place, location.class_name) for location in find_locations([calib])]
    picked = balanced(found, images=images, seed=seed)
    with as_files([place for place, _ in picked]) as files, cluster():
        names = [name for _, name in picked]
        chosen = chosen_images(
            list(zip(files, names, strict=True)), calib, {name for _, name in found}
        )
        # a few hundred images at most, read here besides: they travel to whoever needs them
        pool = RayPool(bundle, [str(file) for file in files], scoring.workers, carry=True)
        yield replace(chosen, workers=pool)
