"""`resdeploy quantize`: INT8 graphs from a bundle and calibration pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resdeploy.calibration.methods import METHODS
from resdeploy.deploy.commands import json_option
from resdeploy.deploy.output import note, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from resdeploy.calibration.pipeline import QuantizeReport, Weights


@click.command(
    epilog="Example: resdeploy quantize flowers.bundle --calib photos/train --data photos/val"
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--calib",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Calibration pictures: a folder, or a list of `path` or `path,class`.",
)
@click.option("--method", type=click.Choice(METHODS), default="auto", show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=512, show_default=True)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Labelled pictures in class folders, to count the accuracy on.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    metavar="PCT",
    help="Points of top-1 a variant may lose on --data.",
)
@click.option("--no-repair", "repair", flag_value=False, default=True, help="Plain ranges only.")
@click.option("--force", is_flag=True, help="Write variants that miss their budget, too.")
@click.option(
    "--weights",
    type=click.Choice(("int8", "float")),
    default="int8",
    show_default=True,
    help="How int8.onnx stores weights; float is for TensorRT before 10.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--write-trt-cache",
    "cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the ranges as a TensorRT calibration cache, for implicit INT8 of fp32.onnx.",
)
@click.option(
    "--trt-version",
    default="8.5.2",
    show_default=True,
    help="TensorRT that will read the cache; it refuses those of other versions.",
)
@json_option
@click.pass_context
def quantize(
    ctx: click.Context,
    /,
    bundle: Path,
    calib: Path,
    cache: Path | None,
    trt_version: str,
    weights: "Weights",
    as_json: bool,
    **options: Any,
) -> None:
    """Add INT8 graphs to BUNDLE that keep its answers, or say why not (exit code 3).

    One pass over the calibration pictures gives int8.onnx and int8-fp16.onnx for TensorRT and
    int8-cpu.onnx for ONNX Runtime's CPU kernels. What loses too much is repaired or refused.
    """
    from resdeploy.calibration.pipeline import quantize as quantize_bundle
    from resdeploy.calibration.trt_cache import header

    if cache is not None:
        header(trt_version)  # before minutes of work
    with progress_bar() as progress:
        report = quantize_bundle(bundle, calib, weights=weights, progress=progress, **options)
    if cache is not None:
        _write_cache(report.bundle, cache, trt_version)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    ctx.exit(report.exit_code)


def print_report(report: "QuantizeReport") -> None:
    """Show what was made, measured, repaired and refused: tables on stdout, remarks on stderr."""
    calibration = report.calibration
    rows = [
        ("calibration pictures", str(calibration["images"])),
        ("held back to judge by", str(calibration["held_back"])),
        ("range method", str(calibration["method"])),
        ("seconds", f"{calibration['seconds']:g}"),
    ]
    print_table((str(report.bundle), ""), rows)
    columns = (
        "variant",
        ">MB",
        ">pictures",
        ">top-1",
        ">drop",
        ">same answer",
        ">SQNR dB",
        "",
    )
    print_table(columns, [_variant_row(report, name) for name in report.accuracy])
    if report.repairs:
        headings = ("repair", "variant", ">SQNR dB before", ">after", ">same answer", "kept")
        print_table(headings, [_repair_row(step) for step in report.repairs])
    for name, reason in report.refused.items():
        verb = "written all the same" if report.forced else "not written"
        note(f"{name} {verb}: {reason}")
    for line in report.notes:
        note(line)


def _variant_row(report: "QuantizeReport", name: str) -> list[str]:
    figures = report.accuracy[name]
    written = {str(variant): file.bytes for variant, file in report.manifest.variants.items()}
    return [
        name,
        f"{written[name] / 1e6:.1f}" if name in written else "",
        str(figures["images"]),
        _points(figures.get("top1"), "%"),
        _points(figures.get("drop")),
        _points(figures.get("agreement"), "%"),
        _points(figures.get("sqnr_db")),
        "refused" if name in report.refused else "",
    ]


def _repair_row(step: Mapping[str, Any]) -> list[str]:
    before, after = step["before"], step["after"]
    return [
        f"{step['rung']} {step['detail']}".strip(),
        step["variant"],
        _points(before["sqnr_db"]),
        _points(after["sqnr_db"]),
        _points(after["agreement"], "%"),
        "yes" if step["accepted"] else "no",
    ]


def _points(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.2f} {unit}".rstrip()


def _write_cache(bundle: Path, cache: Path, version: str) -> None:
    from resdeploy.calibration.ranges import read_ranges
    from resdeploy.calibration.trt_cache import write_trt_cache
    from resdeploy.deploy.bundle import RANGES

    ranges = read_ranges(bundle / RANGES).grids["int8"]
    write_trt_cache(cache, ranges, tensorrt_version=version)
