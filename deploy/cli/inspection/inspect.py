"""`resdeploy inspect` and `resdeploy doctor`: what a file is, and what works here."""

from pathlib import Path
from typing import Any

import click

from resdeploy.deploy.cli.options import BundlePath, json_option
from resdeploy.deploy.cli.output import note, print_json, print_table
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish


@click.command(
    cls=Command,
    epilog="resdeploy inspect net.pth\nresdeploy inspect flowers.bundle --precision int8",
)
@click.argument("path", type=BundlePath())
@click.option(
    "--precision",
    type=click.Choice(("int8",)),
    help="For a bundle: how well each layer of its INT8 graphs came out.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of a checkpoint: images, without labels, to tell which preprocessing and settings fit.",
)
@json_option
def inspect(path: Path, precision: str | None, data: Path | None, as_json: bool) -> None:
    """Show what a checkpoint, a bundle, an engine or an ONNX file is, and how that is known."""
    from resdeploy.deploy.bundle.int8_report import COLUMNS, EXPLAINED, read_int8_layers, table_row
    from resdeploy.deploy.cli.inspection.describe import describe
    from resdeploy.deploy.cli.inspection.following import next_after, next_for_int8

    if precision is not None:
        layers = read_int8_layers(path)
        if as_json:
            print_json(layers)
            return
        for variant, rows in layers["layers"].items():
            print_table((variant, *COLUMNS), [table_row(row) for row in rows])
        for line in (*EXPLAINED, *layers["repairs"]):
            note(line)
        finish(f"inspected {as_typed(path)}", *next_for_int8(path))
        return
    description = describe(path, data)
    if as_json:
        print_json(description)
        return
    following = next_after(path, description, data)
    _print(path, description, with_images=data is not None)
    finish(f"inspected {as_typed(path)}", *following)


def _print(path: Path, description: dict[str, Any], *, with_images: bool) -> None:
    if description["kind"] == "bundle":
        _print_bundle(path, description)
        return
    proofs = description.pop("proofs", {}) if with_images else {}
    for title, lines in _sections(description):
        print_table((title, ""), lines)
    if "batchnorm_statistics" in proofs:
        _print_ranking(proofs["batchnorm_statistics"])


@click.command(
    cls=Command,
    epilog="resdeploy doctor\nresdeploy doctor --json",
)
@json_option
def doctor(as_json: bool) -> None:
    """Show what works on this machine, and how to get what is missing."""
    from resdeploy.deploy.inference.doctor import abilities, examine

    findings = examine()
    if as_json:
        print_json({finding.name: finding.to_json() for finding in findings})
        return
    marks = {True: "works", False: "missing", None: ""}
    rows = [(f.name, marks[f.works], f.detail, f.advice or "") for f in findings]
    print_table(("what", "state", "found", "to get it"), rows)
    can, cannot = abilities({f.name: f for f in findings})
    print_table(("you can",), [(sentence,) for sentence in can])
    lines: list[tuple[str, str]] = []
    for sentence, because, how in cannot:
        # below each other: beside each other, a command would be folded on 80 columns
        lines += [(sentence, because), *([("", how)] if how else [])]
    if lines:
        print_table(("you cannot", "because; how to get it"), lines)
    from resdeploy.deploy.cli.inspection.following import next_on_this_machine

    finish(f"tried {len(findings)} things", *next_on_this_machine(can, cannot))


def _print_bundle(path: Path, description: dict[str, Any]) -> None:
    from resdeploy.deploy.bundle.bundle import read_bundle
    from resdeploy.deploy.cli.inspection.bundle_summary import print_bundle

    print_bundle(path, read_bundle(path).manifest, description)


def _print_ranking(found: dict[str, Any]) -> None:
    """The contract and its alternatives, the nearest first, and what follows."""
    low, high = found["interval"]
    score = f"{found['score']:.4f} ({low:.4f} to {high:.4f})"
    rows = [("nothing: as above", "", str(found["images"]), score, "", "")]
    for other in found["alternatives"]:
        low, high = other["interval"]
        score = f"{other['score']:.4f} ({low:.4f} to {high:.4f})"
        margin = f"{other['margin']:+.4f}"
        images, verdict = str(other["images"]), other["verdict"]
        rows.append((other["key"], other["value"], images, score, margin, verdict))
    columns = ("what is changed", "to", ">images", ">score (95 %)", ">margin", "")
    print_table(columns, rows)
    for sentence in found["sentences"]:
        note(sentence)


def _sections(description: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Flat values make the first table, every nested object one of its own; no row for nothing."""
    flat: list[tuple[str, str]] = []
    nested: list[tuple[str, list[tuple[str, str]]]] = []
    for key, value in description.items():
        if isinstance(value, dict):
            told = [(str(name), item) for name, item in value.items() if _told(item)]
            nested.append((key, [row for name, item in told for row in _rows(name, item)]))
        elif _told(value) or key == "classes":  # without classes it yields features: worth a row
            flat += _rows(key.replace("_px", " (px)").replace("_", " "), value)
    return [(description["kind"], flat[1:]), *(section for section in nested if section[1])]


def _told(value: Any) -> bool:
    """Whether there is anything to say: a count of zero says something, an empty list does not."""
    return value is not None and value not in ("", [], {})


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    """One row, or one for each sentence of a list."""
    if isinstance(value, list) and any(len(str(item)) > 40 for item in value):
        return [("" if k else name, _text(item)) for k, item in enumerate(value)]
    return [(name, _text(value))]


def _text(value: Any) -> str:
    if isinstance(value, list):
        if len(value) > 12:
            return ", ".join(map(_text, value[:10])) + f", … ({len(value)} in all)"
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(_part(key, item) for key, item in value.items() if _told(item))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _part(key: str, value: Any) -> str:
    """One value of an object within a row; what it holds in turn stands in parentheses."""
    text = _text(value)
    return f"{key} ({text})" if isinstance(value, dict | list) else f"{key} {text}"
