"""`resdeploy predict`: validate, classify, print, write files; exit 1 for unread images."""

import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from resdeploy.deploy.cli.options import (
    BATCH_TYPE,
    BundlePath,
    backend_option,
    engine_option,
    json_option,
    option_group,
    precision_option,
    scoring_of,
)
from resdeploy.deploy.cli.output import note, print_json, progress_bar
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.cli.shell.signed import SignedCommand, verify_key_option
from resdeploy.deploy.cli.workers import Asked, answered_by_cluster, written_by_cluster
from resdeploy.deploy.defaults import PREDICTION_BATCH, TOP_CLASSES
from resdeploy.deploy.specs import Backend, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.cli.predict_output import Answer, Rows
    from resdeploy.deploy.images.gather import NamedImage
    from resdeploy.deploy.inference.classifier import Classifier

_output_options = option_group(
    click.option(
        "--csv", "csv_file", type=click.Path(path_type=Path), help="Also write a CSV file."
    ),
    click.option(
        "--csv-raw",
        is_flag=True,
        help="Write texts as they are, even those that a spreadsheet would run as formulas.",
    ),
    click.option(
        "--save-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Also write every image as a JPEG with its answer below it.",
    ),
    click.option(
        "--parquet",
        metavar="DIR_OR_URI",
        help="With --engine ray: the workers write all answers there, and none is printed.",
    ),
)


@click.command(
    cls=SignedCommand,
    epilog="resdeploy predict flowers.bundle tulip.jpg holiday/ --top 3\n"
    "resdeploy predict flowers.bundle photos/val --precision int8 --csv answers.csv",
)
@click.argument("bundle", type=BundlePath())
@click.argument("images", nargs=-1, required=True, metavar="IMAGE_OR_DIR...")
@precision_option
@backend_option
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=TOP_CLASSES,
    show_default=True,
    help="Classes to show of each image.",
)
@click.option(
    "--batch",
    type=BATCH_TYPE,
    default=PREDICTION_BATCH,
    show_default=True,
    help="Images of one inference.",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="P",
    help="Leave out classes below it; an image without any is unsure.",
)
@verify_key_option
@json_option
@_output_options
@engine_option
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    bundle: Path,
    images: tuple[str, ...],
    precision: Precision | Literal["auto"] | None,
    backend: Backend | Literal["auto"],
    top: int,
    batch: int,
    min_probability: float,
    as_json: bool,
    csv_file: Path | None,
    csv_raw: bool,
    save_dir: Path | None,
    parquet: str | None,
) -> None:
    """Classify images, folders, globs, URLs or standard input (-) with BUNDLE.

    BUNDLE may be a lone .onnx file, too. An image that cannot be read becomes one row with its
    reason; the others go on, and the exit code is 1 at the end. Where several images are given, a
    count for each class follows, and the accuracy where their folders name the classes. With
    --engine ray, images may also be URIs such as s3://bucket/folder and .csv or .parquet lists.
    """
    _check_places(csv_file, save_dir)
    asked = Asked(bundle, images, precision, backend, batch, top, min_probability)
    scoring = scoring_of(ctx)
    if scoring.engine == "local":
        if parquet is not None:
            raise click.UsageError("--parquet needs --engine ray")
        rows = _here(asked, save_dir)
    else:
        if save_dir is not None:
            raise click.UsageError("--save-dir needs --engine local")
        if parquet is not None:
            ctx.exit(written_by_cluster(asked, scoring, parquet, as_json=as_json))
        rows = answered_by_cluster(asked, scoring)
    ctx.exit(_show(bundle, rows, csv_file, top, raw=csv_raw, as_json=as_json))


def _here(asked: Asked, save_dir: Path | None) -> "Rows":
    """The answers of this process."""
    from resdeploy.deploy.images.gather import gather

    with tempfile.TemporaryDirectory(prefix="resdeploy-") as folder:
        stdin = BytesIO() if sys.stdin is None else sys.stdin.buffer  # closed by the caller
        gathered = gather(asked.images, Path(folder), stdin)
        for remark in gathered.remarks:
            note(remark)
        rows = _rows(asked, gathered.images)
        if save_dir is not None:
            _save(save_dir, rows)
    return rows


def _check_places(csv_file: Path | None, save_dir: Path | None) -> None:
    """Before minutes of work: the places to write to are there."""
    from resdeploy.deploy.files import check_writable
    from resdeploy.deploy.inference.annotate import make_folder

    check_writable(csv_file)
    if save_dir is not None:
        make_folder(save_dir)


def _show(
    bundle: Path, rows: "Rows", csv_file: Path | None, top: int, *, raw: bool, as_json: bool
) -> int:
    """Print and write the answers; the exit code."""
    from resdeploy.deploy.cli.predict_output import answers_to_json, print_answers, write_csv
    from resdeploy.deploy.errors import EXIT_FIXABLE, InputError

    if csv_file is not None:
        write_csv(csv_file, rows, top, raw=raw)
    if as_json:
        print_json(answers_to_json(rows))
    else:
        print_answers(rows)
    images, failed = len(rows.images), sum(isinstance(a, InputError) for a in rows.answers)
    if failed < images and not as_json:
        told = f"{images - failed} of {images}" if failed else str(images)
        finish(
            f"classified {told} image{'s' * (images > 1)}",
            f"resdeploy verify {as_typed(bundle)} --data DIR",
            f"resdeploy serve {as_typed(bundle)}",
        )
    if failed:
        note(f"{failed} of {len(rows.images)} images could not be read")
    return EXIT_FIXABLE if failed else 0


def _rows(asked: Asked, images: Sequence["NamedImage"]) -> "Rows":
    from resdeploy.deploy.cli.predict_output import Rows
    from resdeploy.deploy.inference.classifier import load

    threads = None if len(images) == 1 else 1
    with load(
        asked.bundle, precision=asked.precision, backend=asked.backend, threads=threads
    ) as classifier:
        answers = _answers(classifier, images, batch=asked.batch, top=asked.top)
        return Rows(images, answers, classifier.manifest.labels, asked.min_probability)


def _answers(
    classifier: "Classifier", images: Sequence["NamedImage"], *, batch: int, top: int
) -> list["Answer"]:
    if classifier.auto is not None:
        note(f"auto: {classifier.auto}")
    paths = [image.path for image in images if image.problem is None]
    found: list[Answer] = []
    with progress_bar(hidden=len(paths) < 2) as progress:
        for answer in classifier.predict_many(paths, batch=batch, top=top, errors="yield"):
            found.append(answer)
            progress("predicting", len(found), len(paths))
    waiting = iter(found)
    return [image.problem or next(waiting) for image in images]


def _save(folder: Path, rows: "Rows") -> None:
    """Every readable image with its answer, under its own name, numbered where that is taken."""
    from resdeploy.deploy.images.files import open_image
    from resdeploy.deploy.inference.annotate import annotated, unique_name

    taken: set[str] = set()
    for image, answer in zip(rows.images, rows.answers, strict=True):
        if isinstance(answer, list):
            page = annotated(open_image(image.path), rows.certain(answer))
            page.save(folder / unique_name(Path(image.name).stem, taken), quality=90)
    note(f"{len(taken)} annotated images in {folder}")
