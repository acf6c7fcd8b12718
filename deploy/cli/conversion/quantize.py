"""`resdeploy quantize`: INT8 graphs from a bundle and calibration images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resdeploy.deploy.cli.options import (
    SEED_TYPE,
    BundlePath,
    FiniteRange,
    engine_option,
    json_option,
    scoring_of,
)
from resdeploy.deploy.cli.output import note, print_json, print_table
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.cli.shell.signed import SignedCommand, sign_option, will_be_signed
from resdeploy.deploy.cli.steps import progress_steps
from resdeploy.deploy.cli.workers import calibration_images
from resdeploy.deploy.defaults import (
    CALIBRATION_IMAGES,
    RANGE_METHOD,
    RANGE_SOURCE,
    SEED,
    TENSORRT_CACHE_VERSION,
)
from resdeploy.deploy.machine import cores
from resdeploy.deploy.specs import RANGE_METHODS, RANGE_SOURCES, REPAIRS_IN_WORDS, RangeSource
from resdeploy.deploy.system.memory import limit_arenas

if TYPE_CHECKING:
    from resdeploy.calibration.job import QuantizeReport, Weights


@click.command(
    cls=SignedCommand,
    epilog="resdeploy quantize flowers.bundle --calib photos/train --data photos/val\n"
    "resdeploy quantize flowers.bundle --calib photos/train --ranges calibrate",
)
@click.argument("bundle", type=BundlePath(changed=True))
@click.option(
    "--calib",
    metavar="DIR",
    help="Calibration images: a folder, or a list of `path` or `path,class`. Without it, the "
    "statistics of the network's batch norms stand for images, which loses more.",
)
@click.option(
    "--method",
    type=click.Choice(RANGE_METHODS),
    default=RANGE_METHOD,
    show_default=True,
    help="How ranges are chosen; auto finds the method that does best.",
)
@click.option(
    "--ranges",
    type=click.Choice(RANGE_SOURCES),
    default=RANGE_SOURCE,
    show_default=True,
    help="Measure every range, or take those of quantization-aware training; auto takes them "
    "where the checkpoint had any.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=CALIBRATION_IMAGES,
    show_default=True,
    help="Use at most this many of them.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Labelled images in class folders to measure the accuracy on.",
)
@click.option(
    "--max-drop",
    type=FiniteRange(min=0),
    metavar="PCT",
    help="Points of top-1 that a variant may lose on --data.",
)
@click.option(
    "--no-repair",
    "repair",
    flag_value=False,
    default=True,
    help="Do not try to repair a variant that loses too much.",
)
@click.option("--force", is_flag=True, help="Also write variants that lose too much.")
@click.option(
    "--weights",
    type=click.Choice(("int8", "float")),
    default="int8",
    show_default=True,
    help="How int8.onnx stores weights; float is for TensorRT 8 and 9.",
)
@click.option(
    "--seed",
    type=SEED_TYPE,
    default=SEED,
    show_default=True,
    help="Of every random choice.",
)
@click.option(
    "--write-trt-cache",
    "cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the ranges as a TensorRT calibration cache, for implicit INT8 of fp32.onnx.",
)
@click.option(
    "--trt-version",
    default=TENSORRT_CACHE_VERSION,
    show_default=True,
    help="The TensorRT that will read the cache; it accepts no other version's.",
)
@engine_option
@click.option("--verbose", is_flag=True, help="Also show every repair that was tried.")
@sign_option
@json_option
@click.pass_context
def quantize(
    ctx: click.Context,
    /,
    bundle: Path,
    calib: str | None,
    method: str,
    ranges: RangeSource,
    images: int,
    data: Path | None,
    max_drop: float | None,
    repair: bool,
    force: bool,
    weights: "Weights",
    seed: int,
    cache: Path | None,
    trt_version: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Add INT8 graphs to BUNDLE that keep its answers, or say why not (exit code 3).

    One pass over the images gives int8.onnx and int8-fp16.onnx for TensorRT and int8-cpu.onnx for
    ONNX Runtime's CPU kernels. A variant that loses too much is repaired, or else refused.
    """
    from resdeploy.calibration.pipeline import quantize as quantize_bundle

    _check_cache_version(cache, trt_version)  # before minutes of work
    limit_arenas(cores())  # before there are threads: 710 instead of 616 MiB otherwise
    found = calibration_images(bundle, calib, images, seed, scoring_of(ctx))
    with found as chosen, progress_steps() as progress:
        report = quantize_bundle(
            bundle, chosen, method=method, ranges=ranges, images=images, data=data, seed=seed,
            max_drop=max_drop, repair=repair, force=force, weights=weights, progress=progress,
        )  # fmt: skip
    will_be_signed(report.bundle)
    if cache is not None:
        _write_cache(report.bundle, cache, trt_version)
    print_json(report.to_json()) if as_json else print_report(report, verbose=verbose)
    ctx.exit(report.exit_code)


def print_report(
    report: "QuantizeReport", *, verbose: bool = False, done: str = "quantized"
) -> None:
    """Show what was made, and in one sentence each what was repaired and what to type next: a
    table on stdout, remarks on stderr. `verbose` adds every attempt of the repair ladder; `done`
    is what the command did."""
    columns = ("variant", ">MB", ">ratio", ">ms/image", ">top-1", ">same answer", ">SQNR dB", "")
    rows = [_float_row(report), *(_variant_row(report, name) for name in report.accuracy)]
    print_table(columns, rows, title=_title(report))
    if verbose and report.repairs:
        headings = ("repair", "variant", ">SQNR dB before", ">after", ">same answer", "kept")
        print_table(headings, [_repair_row(step) for step in report.repairs])
    judged_on = "images held back" if report.calibration["images"] else "synthetic images"
    for variant in dict.fromkeys(step["variant"] for step in report.repairs):
        steps = [step for step in report.repairs if step["variant"] == variant]
        note(repairs_in_words(variant, steps, judged_on))
    for name, reason in report.refused.items():
        verb = "written anyway" if report.forced else "not written"
        note(f"{name} {verb}: {reason}")
    for line in report.notes:
        note(line)
    if not report.exit_code:
        bundle = as_typed(report.bundle)
        finish(
            f"{done} {bundle}",
            f"resdeploy verify {bundle} --data DIR",
            f"resdeploy predict {bundle} IMAGE --precision int8",
        )


def _title(report: "QuantizeReport") -> str:
    calibration = report.calibration
    figures: Mapping[str, Any] = next(iter(report.accuracy.values()), {})
    count = calibration["images"]
    real = count or figures.get("top1") is not None  # else those recorded in the bundle
    return (
        f"{report.bundle}: {count or 'no'} calibration images, ranges by "
        f"{calibration['method']}, {calibration['seconds']:g} s; figures on "
        f"{figures.get('images', 0)} {'images' if real else 'inputs'}"
    )


def _float_row(report: "QuantizeReport") -> list[str]:
    """What the variants are compared with."""
    figures: Mapping[str, Any] = next(iter(report.accuracy.values()), {})
    size, ms = report.manifest.variants["fp32"].bytes, report.calibration.get("ms_per_image", {})
    top1 = _points(figures.get("top1_reference"), "%")
    return ["fp32", f"{size / 1e6:.1f}", "1.0", _points(ms.get("fp32")), top1, "", "", ""]


def _variant_row(report: "QuantizeReport", name: str) -> list[str]:
    figures = report.accuracy[name]
    written = {str(variant): file.bytes for variant, file in report.manifest.variants.items()}
    ms = report.calibration.get("ms_per_image", {})
    drop = figures.get("drop")
    change = "" if drop is None else f" ({0.0 - drop:+.2f})"
    return [
        name,
        f"{written[name] / 1e6:.1f}" if name in written else "",
        f"{written['fp32'] / written[name]:.1f}" if name in written else "",
        # the others are TensorRT's: a CPU computes them step by step, for their answers only
        _points(ms.get(name)) if name == "int8-cpu" else "",
        f"{_points(figures.get('top1'), '%')}{change}",
        _points(figures.get("agreement"), "%"),
        _points(figures.get("sqnr_db")),
        "refused" if name in report.refused else "",
    ]


def repairs_in_words(variant: str, steps: Sequence[Mapping[str, Any]], judged_on: str) -> str:
    """One sentence: why the variant was repaired, by what, and what it gained on which images."""
    kept = list(dict.fromkeys(step["rung"] for step in steps if step["accepted"]))
    first = steps[0]["before"]["sqnr_db"]
    if not kept:
        return f"{variant}: {first:.1f} dB, and none of {len(steps)} repairs gained enough"
    last = next(step["after"]["sqnr_db"] for step in reversed(steps) if step["accepted"])
    ways = ", ".join(REPAIRS_IN_WORDS[rung] for rung in kept)
    floats = [step["detail"] for step in steps if step["accepted"] and step["rung"] == "float"]
    named = f" ({floats[-1]})" if floats else ""
    if last < first:  # the ladder keeps a fit that few images say loses a little
        return (
            f"{variant}: {first:.1f} dB on {judged_on}, and {last:.1f} after {ways}{named}: kept, "
            "since it has gained wherever more images told"
        )
    return f"{variant}: repaired from {first:.1f} to {last:.1f} dB on {judged_on}, by {ways}{named}"


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


def _check_cache_version(cache: Path | None, version: str) -> None:
    from resdeploy.calibration.ranges.trt_cache import header

    if cache is not None:
        header(version)


def _write_cache(bundle: Path, cache: Path, version: str) -> None:
    from resdeploy.calibration.ranges.ranges import read_ranges
    from resdeploy.calibration.ranges.trt_cache import write_trt_cache
    from resdeploy.deploy.bundle.bundle import RANGES, read_bundle

    file = read_bundle(bundle).file(RANGES) or bundle / RANGES
    ranges = read_ranges(file).grids["int8"]
    write_trt_cache(cache, ranges, tensorrt_version=version)
