"""`predict` over a cluster: answers here in order, or as Parquet from where they were made."""

from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.spread import Spread
from resdeploy.deploy.inference.classifier import Classifier, load
from resdeploy.deploy.inference.prediction import Prediction, top_predictions
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.scale_out.pool import RayPool, write_parquet
from resdeploy.deploy.specs import Backend, Precision

# predictions, or why there are none
Answer = list[Prediction] | str


def predict_spread(
    spread: Spread,
    places: Sequence[str],
    *,
    precision: Precision | None,
    backend: Backend | Literal["auto"],
    top: int,
    batch: int,
    progress: Progress,
) -> Generator[list[Prediction] | InputError, None, None]:
    """What `predict_many` yields for the same images, whoever works on them.

    Raises:
        ResdeployError: the bundle cannot be opened by a worker, or has no classes.
    """
    opened = partial(load, precision=precision, backend=backend, threads=1)
    done = 0
    for answers in spread(opened, partial(_answers, top=top), shares(len(places), batch)):
        for answer in answers:
            place = places[done]
            yield InputError(f"{place}: {answer}") if isinstance(answer, str) else answer
            done += 1
        progress("predicting", done, len(places))


def predict_to_parquet(
    pool: RayPool,
    output: str,
    *,
    precision: Precision | None,
    backend: Backend | Literal["auto"],
    top: int,
    batch: int,
) -> int:
    """Write a row for each image: position, path, error, labels, indices, probabilities.

    The workers write, each a file of its own into the folder or below the URI `output`; nothing
    passes through here. Returns how many images could not be read.

    Raises:
        InputError: something is at `output` already.
        ResdeployError: the bundle cannot be opened by a worker, or has no classes.
    """
    import pyarrow.dataset as parquet

    system, path = _place_to_write(output)
    opened = partial(load, precision=precision, backend=backend, threads=1)
    given = shares(len(pool.places), batch)
    write_parquet(pool.dataset(opened, partial(_answers, top=top), given, _Rows(batch)), output)
    written = parquet.dataset(path, filesystem=system, format="parquet")
    failed: int = written.count_rows(filter=parquet.field("error") != "")
    return failed


def shares(count: int, batch: int) -> list[range]:
    """The positions of each run."""
    return [range(start, min(start + batch, count)) for start in range(0, count, batch)]


def _answers(
    classifier: Classifier, number: int, files: Sequence[Path], *, top: int
) -> list[Answer]:
    labels = classifier.manifest.labels
    return [
        str(found).removeprefix(f"{file}: ")
        if isinstance(found, InputError)
        else top_predictions(found, labels, top)
        for file, found in zip(files, classifier.logits_batch(files), strict=True)
    ]


class _Rows:
    """Answers as a table; of a fixed schema, for a file may hold nothing but errors."""

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def __call__(self, number: int, places: Sequence[str], answers: Sequence[Answer]) -> Any:
        import pyarrow as pa

        found = [[] if isinstance(answer, str) else answer for answer in answers]
        start = number * self._batch
        columns = {
            "position": pa.array(range(start, start + len(places)), pa.int64()),
            "path": pa.array(places, pa.string()),
            "error": pa.array([a if isinstance(a, str) else "" for a in answers], pa.string()),
            "labels": pa.array([[p.label for p in f] for f in found], pa.list_(pa.string())),
            "indices": pa.array([[p.index for p in f] for f in found], pa.list_(pa.int64())),
            "probabilities": pa.array(
                [[p.probability for p in f] for f in found], pa.list_(pa.float64())
            ),
        }
        return pa.table(columns)


def _place_to_write(output: str) -> tuple[Any, str]:
    import fsspec

    system, path = fsspec.core.url_to_fs(output)
    if system.exists(path):
        raise InputError(f"{output}: exists already: choose another place for the Parquet files")
    return system, path
