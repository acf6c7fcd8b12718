"""`resdeploy verify`: validate, call `verify`, print and write the reports, exit 0 or 3."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from resdeploy.deploy.cli.options import (
    SEED_TYPE,
    BundlePath,
    backends_option,
    engine_option,
    json_option,
    precisions_option,
    scoring_of,
)
from resdeploy.deploy.cli.output import note, print_json, progress_bar
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.cli.shell.signed import SignedCommand, verify_key_option
from resdeploy.deploy.cli.verify_output import Outputs, print_report
from resdeploy.deploy.cli.workers import verification_images
from resdeploy.deploy.defaults import MAX_CLASS_DROP, MAX_DROP, SEED
from resdeploy.deploy.errors import EXIT_GATE_FAILED
from resdeploy.deploy.optional import needs
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.device.address import PYTHON, Device, parse_device

if TYPE_CHECKING:
    from resdeploy.deploy.verification.comparison_target import OpenLive
    from resdeploy.deploy.verification.explain import MeasureLayers
    from resdeploy.deploy.verification.reports.report import VerifyReport


_FILES = "resdeploy.verify.files"
_DEVICE = "resdeploy.verify.device"


def _keep_file(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    """Files go into the context, where `Outputs` takes them, not into the command's arguments."""
    ctx.meta.setdefault(_FILES, {})[parameter.name] = value


def _keep_device(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """So do the words about a device, which `_device` reads."""
    ctx.meta.setdefault(_DEVICE, {})[parameter.name] = value


def _file_option(name: str, help: str) -> Callable[[Any], Any]:
    path = click.Path(path_type=Path, dir_okay=False)
    return click.option(
        name, type=path, metavar="FILE", help=help, expose_value=False, callback=_keep_file
    )


@click.command(
    cls=SignedCommand,
    epilog="resdeploy verify flowers.bundle --data photos/val --max-drop 1\n"
    "resdeploy verify flowers.bundle --against released.bundle --data photos/val",
)
@click.argument("bundle", type=BundlePath())
@click.option(
    "--data",
    metavar="DIR",
    help="Images in class folders, or a list path,label.  [default: replay reference.npz]",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="CKPT",
    help="Also run this checkpoint in PyTorch and compare with it.",
)
@precisions_option
@backends_option
@click.option(
    "--max-drop",
    type=float,
    metavar="PCT",
    help=f"Points of top-1 that may be lost.  [default: {MAX_DROP:g}]",
)
@click.option("--min-top1", type=float, metavar="PCT", help="Top-1 that must be reached.")
@click.option(
    "--min-agreement",
    type=float,
    metavar="PCT",
    help="Share of images that must get the same class as in PyTorch.",
)
@click.option(
    "--max-class-drop",
    type=float,
    metavar="PCT",
    help=f"Points that any one class may lose, beyond doubt.  [default: {MAX_CLASS_DROP:g}]",
)
@click.option(
    "--max-slower",
    type=float,
    metavar="PCT",
    help="Percent that a variant may be slower than bench was here, or than --against is.",
)
@click.option(
    "--against",
    type=BundlePath(),
    metavar="OLD",
    help="Compare with another release: bundle, .onnx, engine or saved answers.",
)
@click.option(
    "--on",
    metavar="HOST[:PATH]",
    expose_value=False,
    callback=_keep_device,
    help="Run the sessions on a device over ssh, of BUNDLE or of the one at PATH there.",
)
@click.option(
    "--on-python",
    metavar="PYTHON",
    expose_value=False,
    callback=_keep_device,
    help=f"The Python on the device that has resdeploy.  [default: {PYTHON}]",
)
@_file_option("--record", "Add this run to a history: one line of JSON.")
@_file_option("--baseline", "Also compare with the answers saved in FILE.")
@_file_option("--save-baseline", "Save the answers to FILE.")
@click.option(
    "--update-baseline-if-better",
    "ratchet",
    is_flag=True,
    help="Replace --baseline when no variant got worse and one got better.",
)
@_file_option("--junit", "Write JUnit XML.")
@_file_option("--markdown", "Write a summary in GitHub-flavoured markdown.")
@_file_option("--html", "Write a report in one HTML file.")
@click.option(
    "--strict",
    is_flag=True,
    help="Also fail what is undecided or could not be checked.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Find the layer that errs and try other preprocessings (slower).",
)
@click.option(
    "--seed", type=SEED_TYPE, default=SEED, show_default=True, help="Seed of the bootstrap."
)
@engine_option
@click.option("--wide", is_flag=True, help="Show every column and every sentence.")
@verify_key_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    bundle: Path,
    data: str | None,
    checkpoint: Path | None,
    precisions: tuple[Precision, ...],
    backends: tuple[Backend | Literal["auto"], ...],
    max_drop: float | None,
    min_top1: float | None,
    min_agreement: float | None,
    max_class_drop: float | None,
    max_slower: float | None,
    against: Path | None,
    ratchet: bool,
    strict: bool,
    explain: bool,
    seed: int,
    wide: bool,
    as_json: bool,
) -> None:
    """Decide whether BUNDLE still gives PyTorch's answers; exit with 3 if it does not.

    A limit is broken only if the whole 95 % interval is beyond it.
    """
    from resdeploy.deploy.verification.verify import verify as verify_bundle

    outputs = _outputs(ctx, bundle, ratchet=ratchet, as_json=as_json, wide=wide)
    outputs.check(has_images=data is not None)
    found = verification_images(bundle, data, backends, scoring_of(ctx))
    with found as images, progress_bar(hidden=as_json) as progress:
        report = verify_bundle(
            bundle, data=images, live=None if checkpoint is None else _live(checkpoint),
            precisions=precisions, backends=backends, max_drop=max_drop, min_top1=min_top1,
            min_agreement=min_agreement, max_class_drop=max_class_drop, max_slower=max_slower,
            baseline=outputs.baseline, against=against, on=_device(ctx), strict=strict, seed=seed,
            explain=_measure_layers() if explain else None, progress=progress,
        )  # fmt: skip
        saved = outputs.write(report)
    ctx.exit(_print_and_decide(report, outputs, saved))


def _outputs(
    ctx: click.Context, bundle: Path, *, ratchet: bool, as_json: bool, wide: bool
) -> Outputs:
    files = ctx.meta[_FILES]
    return Outputs(
        bundle=bundle,
        baseline=files["baseline"],
        save_baseline=files["save_baseline"],
        ratchet=ratchet,
        junit=files["junit"],
        markdown=files["markdown"],
        html=files["html"],
        record=files["record"],
        as_json=as_json,
        wide=wide,
    )


def _print_and_decide(report: "VerifyReport", outputs: Outputs, saved: Path | None) -> int:
    from resdeploy.deploy.bundle.bundle import save_in_bundle

    content = {**report.to_json(), "saved_baseline": None if saved is None else str(saved)}
    save_in_bundle(outputs.bundle, "verify.json", content)
    _say(report, saved)
    if outputs.as_json:
        print_json(content)
    else:
        print_report(report, wide=outputs.wide)
        finish("verified", *_next(report))
    return EXIT_GATE_FAILED if report.verdict == "fail" else 0


def _next(report: "VerifyReport") -> tuple[str, str]:
    """What is usually typed after a verdict."""
    bundle = as_typed(report.bundle)
    if report.verdict == "pass":
        return f"resdeploy bench {bundle}", f"resdeploy serve {bundle}"
    if report.verdict == "fail":
        return f"resdeploy verify {bundle} --data DIR --explain", f"resdeploy inspect {bundle}"
    return f"resdeploy verify {bundle} --data MORE_IMAGES", f"resdeploy inspect {bundle}"


def _device(ctx: click.Context) -> Device | None:
    """The device that was named, if one was."""
    text, python = (ctx.meta[_DEVICE][name] for name in ("on", "on_python"))
    if text is None and python is not None:
        raise click.UsageError("--on-python needs --on HOST")
    return None if text is None else parse_device(text, python or PYTHON)


def _live(checkpoint: Path) -> "OpenLive":
    from resdeploy.export.proof.live import open_checkpoint

    return partial(open_checkpoint, checkpoint)


def _measure_layers() -> "MeasureLayers":
    with needs("verify --explain"):
        from resdeploy.calibration.layerwise import layer_errors
    return layer_errors


def _say(report: "VerifyReport", saved: Path | None) -> None:
    """Remarks and annotations on stderr, which GitHub reads like stdout."""
    from resdeploy.deploy.verification.reports.ci_report import annotations

    for remark in report.notes:
        note(f"note: {remark}")
    if saved is not None:
        note(f"saved the answers to {saved}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(report):
            note(line)
