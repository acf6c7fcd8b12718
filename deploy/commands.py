"""The commands that run on every machine: predict, inspect, doctor.

A command validates, calls one function of the library, prints. Nothing heavier than click is
imported before a command runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from resdeploy.deploy.output import note, print_json, print_table, progress_bar
from resdeploy.deploy.specs import BACKENDS, PRECISIONS, Backend, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.classifier import Prediction
    from resdeploy.deploy.errors import InputError

precision_option = click.option(
    "--precision",
    type=click.Choice(("auto", *PRECISIONS)),
    help="auto: the fastest here that passes the bundle's reference check.  "
    "[default: fp32, or what a lone ONNX file holds]",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(("auto", *BACKENDS)),
    default="auto",
    show_default=True,
    help="What runs the network; auto takes the fastest that gives the reference's answers here.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.command(epilog="Example: resdeploy predict flowers.bundle tulip.jpg holiday/ --top 3")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, metavar="IMAGE_OR_DIR...")
@precision_option
@backend_option
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@json_option
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Also write a CSV file.")
@click.pass_context
def predict(
    ctx: click.Context,
    bundle: Path,
    pictures: tuple[str, ...],
    precision: Precision | Literal["auto"] | None,
    backend: Backend | Literal["auto"],
    top: int,
    batch: int,
    as_json: bool,
    csv_file: Path | None,
) -> None:
    """Classify pictures, folders of pictures or globs with BUNDLE (or a lone .onnx file).

    A picture that cannot be read becomes one row with its reason; the others go on, and the exit
    code is 1 at the end.
    """
    from resdeploy.deploy.classifier import load
    from resdeploy.deploy.errors import InputError
    from resdeploy.deploy.pictures import find_pictures

    if csv_file is not None and not csv_file.parent.is_dir():
        raise InputError(f"{csv_file}: cannot be written: no folder {csv_file.parent}")
    paths = find_pictures(pictures)
    answers: list[list[Prediction] | InputError] = []
    threads = None if len(paths) == 1 else 1
    with load(bundle, precision=precision, backend=backend, threads=threads) as classifier:
        if classifier.choice is not None:
            note(f"auto: {classifier.choice}")
        with progress_bar(hidden=len(paths) < 2) as progress:
            for answer in classifier.predict_many(paths, batch=batch, top=top, errors="yield"):
                answers.append(answer)
                progress("predicting", len(answers), len(paths))
    if csv_file is not None:
        _write_csv(csv_file, paths, answers, top)
    if as_json:
        rows = zip(paths, answers, strict=True)
        print_json([_answer_to_json(path, answer) for path, answer in rows])
    else:
        _print_answers(paths, answers)
    failed = sum(isinstance(answer, InputError) for answer in answers)
    if failed:
        note(f"{failed} of {len(paths)} pictures could not be read")
        ctx.exit(1)


@click.command(epilog="Example: resdeploy inspect resnext50.pth")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(("int8",)),
    help="Of a bundle: how each layer of its INT8 graphs came out.",
)
@json_option
def inspect(path: Path, precision: str | None, as_json: bool) -> None:
    """Show what a checkpoint, a bundle, an engine or an ONNX file is, and how that is known."""
    from resdeploy.deploy.inspect import inspect as inspect_path
    from resdeploy.deploy.int8_layers import COLUMNS, read_int8_layers, table_row

    if precision is not None:
        layers = read_int8_layers(path)
        if as_json:
            print_json(layers)
            return
        for variant, rows in layers["layers"].items():
            print_table((variant, *COLUMNS), [table_row(row) for row in rows])
        for line in layers["repairs"]:
            note(line)
        return
    description = inspect_path(path)
    if as_json:
        print_json(description)
        return
    for title, lines in _sections(description):
        print_table((title, ""), lines)


@click.command(epilog="Example: resdeploy doctor --json")
@json_option
def doctor(as_json: bool) -> None:
    """Show what works on this machine, and for each thing missing how to get it."""
    from resdeploy.deploy.doctor import examine

    findings = examine()
    if as_json:
        print_json({finding.name: finding.to_json() for finding in findings})
        return
    marks = {True: "works", False: "missing", None: ""}
    rows = [(f.name, marks[f.works], f.detail, f.advice or "") for f in findings]
    print_table(("what", "state", "found", "to get it"), rows)


def _print_answers(paths: list[Path], answers: list["list[Prediction] | InputError"]) -> None:
    if len(paths) == 1 and isinstance(answers[0], list):
        rows = [(p.label, str(p.index), f"{p.probability:.2%}") for p in answers[0]]
        print_table((str(paths[0]), ">index", ">probability"), rows)
        return
    table: list[tuple[str, str, str, str]] = []
    for path, answer in zip(paths, answers, strict=True):
        if not isinstance(answer, list):
            table.append((str(path), "error", "", _reason(path, answer)))
            continue
        first, *others = answer
        following = ", ".join(f"{p.label} {p.probability:.1%}" for p in others)
        table.append((str(path), first.label, f"{first.probability:.2%}", following))
    print_table(("picture", "class", ">probability", "then"), table)


def _answer_to_json(path: Path, answer: "list[Prediction] | InputError") -> dict[str, Any]:
    if isinstance(answer, list):
        return {"path": str(path), "predictions": [vars(prediction) for prediction in answer]}
    return {"path": str(path), "error": _reason(path, answer)}


def _write_csv(
    file: Path, paths: list[Path], answers: list["list[Prediction] | InputError"], top: int
) -> None:
    import csv

    from resdeploy.deploy.bundle import replaced_file

    ranks = max((len(answer) for answer in answers if isinstance(answer, list)), default=top)
    columns = ["path", "error"]
    for rank in range(1, ranks + 1):
        columns += [f"label_{rank}", f"index_{rank}", f"probability_{rank}"]
    # surrogateescape: the bytes of a file name that is not UTF-8 stay what they are
    with (
        replaced_file(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(columns)
        for path, answer in zip(paths, answers, strict=True):
            if isinstance(answer, list):
                cells = [cell for p in answer for cell in (p.label, p.index, p.probability)]
                writer.writerow([path, "", *cells])
            else:
                writer.writerow([path, _reason(path, answer)])


def _reason(path: Path, error: "InputError") -> str:
    return str(error).removeprefix(f"{path}: ")


def _sections(description: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Flat values make the first table, every nested object one of its own."""
    flat: list[tuple[str, str]] = []
    nested: list[tuple[str, list[tuple[str, str]]]] = []
    for key, value in description.items():
        if isinstance(value, dict):
            nested.append((key, [(str(name), _text(item)) for name, item in value.items()]))
        else:
            flat.append((key, _text(value)))
    return [(description["kind"], flat[1:]), *(section for section in nested if section[1])]


def _text(value: Any) -> str:
    if isinstance(value, list):
        if len(value) > 12:
            return ", ".join(map(str, value[:10])) + f", … ({len(value)} in all)"
        separator = "\n" if any(len(str(item)) > 40 for item in value) else ", "
        return separator.join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "none" if value is None else str(value)
