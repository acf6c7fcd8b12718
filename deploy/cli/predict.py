"""`resdeploy predict`: validate, classify, print, write files; exit 1 for unread images."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
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
from resdeploy.deploy.cli.output import note, pausing_bar
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.cli.shell.signed import SignedCommand, verify_key_option
from resdeploy.deploy.cli.workers import Asked, answered_by_cluster, written_by_cluster
from resdeploy.deploy.defaults import PREDICTION_BATCH, TOP_CLASSES
from resdeploy.deploy.specs import Backend, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.cli.predict_output import Rows

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

    BUNDLE may be a lone .onnx file or an .engine with its .json, too. An image that cannot be read
    becomes one row with its reason; the others go on, and the exit code is 1 at the end. After
    several images comes a count for each class, and the accuracy where folders name the classes.
    With --engine ray, images may also be URIs (s3://bucket/folder) and .csv or .parquet lists.
    """
    _check_places(csv_file, save_dir)
    asked = Asked(bundle, images, precision, backend, batch, top, min_probability)
    scoring = scoring_of(ctx)
    if scoring.engine == "local":
        if parquet is not None:
            raise click.UsageError("--parquet needs --engine ray")
        answered = _answered_here(asked)
    else:
        if save_dir is not None:
            raise click.UsageError("--save-dir needs --engine local")
        if parquet is not None:
            ctx.exit(written_by_cluster(asked, scoring, parquet, as_json=as_json))
        answered = answered_by_cluster(asked, scoring)
    with answered as rows:
        forms = _Forms(csv_file, csv_raw, save_dir, as_json, top)
        failed = _pass_on(rows, forms)
    ctx.exit(_say_done(bundle, len(rows.images), failed, as_json=as_json))


@contextmanager
def _answered_here(asked: Asked) -> Iterator["Rows"]:
    """The answers of this process."""
    from resdeploy.deploy.cli.predict_output import Rows
    from resdeploy.deploy.images.gather import gather
    from resdeploy.deploy.inference.classifier import load

    with tempfile.TemporaryDirectory(prefix="resdeploy-") as folder:
        stdin = BytesIO() if sys.stdin is None else sys.stdin.buffer  # closed by the caller
        gathered = gather(asked.images, Path(folder), stdin)
        for remark in gathered.remarks:
            note(remark)
        threads = None if len(gathered.images) == 1 else 1
        with load(
            asked.bundle, precision=asked.precision, backend=asked.backend, threads=threads
        ) as classifier:
            if classifier.auto is not None:
                note(f"auto: {classifier.auto}")
            found = classifier.predict_many(
                gathered.images.files, batch=asked.batch, top=asked.top, errors="yield"
            )
            with closing(found):
                answers = (image.problem or next(found) for image in gathered.images)
                yield Rows(
                    gathered.images, answers, classifier.manifest.labels, asked.min_probability
                )


def _check_places(csv_file: Path | None, save_dir: Path | None) -> None:
    """Before minutes of work: the places to write to are there."""
    from resdeploy.deploy.files import check_writable
    from resdeploy.deploy.inference.annotate import make_folder

    check_writable(csv_file)
    if save_dir is not None:
        make_folder(save_dir)


@dataclass(frozen=True)
class _Forms:
    """In which forms the answers are wanted."""

    csv_file: Path | None
    csv_raw: bool
    save_dir: Path | None
    as_json: bool
    top: int


def _pass_on(rows: "Rows", forms: _Forms) -> int:
    """Print and write the answers as they come; how many images could not be read."""
    from resdeploy.deploy.cli.predict_files import AfterOthers, CsvFile, JsonList, Pages
    from resdeploy.deploy.cli.predict_output import Output, Table
    from resdeploy.deploy.errors import InputError

    count, failed = len(rows.images), 0
    with ExitStack() as stack:
        outputs: list[Output] = []
        if forms.save_dir is not None:
            outputs.append(Pages(forms.save_dir, rows))
        if forms.csv_file is not None:
            csv_file = CsvFile(forms.csv_file, rows, forms.top, raw=forms.csv_raw)
            outputs.append(stack.enter_context(closing(csv_file)))
        with pausing_bar(hidden=count < 2) as (progress, paused):
            if forms.as_json:
                printed: Output = stack.enter_context(closing(JsonList(rows)))
            else:
                printed = Table(rows, paused)
            outputs.append(AfterOthers(printed) if outputs else printed)
            for done, (image, answer) in enumerate(zip(rows.images, rows.answers, strict=True), 1):
                failed += isinstance(answer, InputError)
                for output in outputs:
                    output.add(image, answer)
                progress("predicting", done, count)
        for output in outputs:
            output.end()
    return failed


def _say_done(bundle: Path, count: int, failed: int, *, as_json: bool) -> int:
    """What follows the answers; the exit code."""
    from resdeploy.deploy.errors import EXIT_FIXABLE

    if failed < count and not as_json:
        told = f"{count - failed} of {count}" if failed else str(count)
        name = as_typed(bundle)
        engine = bundle.suffix == ".engine"  # which has no recorded answers to be held to
        finish(
            f"classified {told} image{'s' * (count > 1)}",
            f"resdeploy bench {name}" if engine else f"resdeploy verify {name} --data DIR",
            f"resdeploy serve {name}",
        )
    if failed:
        note(f"{failed} of {count} images could not be read")
    return EXIT_FIXABLE if failed else 0
