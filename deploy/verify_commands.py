"""`resdeploy verify`: validate, call `verify`, print and write the reports, exit 0 or 3."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from resdeploy.deploy.commands import json_option
from resdeploy.deploy.output import note, print_json, print_table, progress_bar
from resdeploy.deploy.specs import BACKENDS, PRECISIONS, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.explain import Explanation
    from resdeploy.deploy.verify_report import VerifyReport

_GATE_FAILED = 3


def _precisions(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[Precision, ...]:
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(name for name in get_args(Precision) if name in names)


def _file_option(name: str, help: str) -> Callable[[Any], Any]:
    path = click.Path(path_type=Path, dir_okay=False)
    return click.option(name, type=path, metavar="FILE", help=help)


precisions_option = click.option(
    "--precision",
    "precisions",
    multiple=True,
    callback=_precisions,
    metavar="LIST",
    help="fp32, fp16, int8; repeat or separate by commas.  [default: all in BUNDLE]",
)
backends_option = click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(("auto", *BACKENDS)),
    default=("auto",),
    show_default=True,
    help="What runs the network; may be repeated.",
)


@click.command(epilog="Example: resdeploy verify flowers.bundle --data photos/val --max-drop 1")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Pictures in class folders, or a list path,label.  [default: replay reference.npz]",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="CKPT",
    help="Compare with this checkpoint, live in PyTorch.",
)
@precisions_option
@backends_option
@click.option(
    "--max-drop",
    type=float,
    metavar="PCT",
    help="Points of top-1 that may be lost.  [default: 1]",
)
@click.option("--min-top1", type=float, metavar="PCT", help="Top-1 that must be reached.")
@click.option(
    "--min-agreement",
    type=float,
    metavar="PCT",
    help="Share of pictures that must get the reference's class.",
)
@_file_option("--baseline", "Compare with the answers saved in FILE, too.")
@_file_option("--save-baseline", "Save the answers to FILE.")
@click.option(
    "--update-baseline-if-better",
    "ratchet",
    is_flag=True,
    help="Replace --baseline when no variant got worse and one got better.",
)
@_file_option("--junit", "Write JUnit XML.")
@_file_option("--markdown", "Write a summary in GitHub-flavoured markdown.")
@_file_option("--html", "Write a report that opens offline.")
@click.option("--strict", is_flag=True, help="Too few pictures to decide is a failure.")
@click.option(
    "--explain",
    is_flag=True,
    help="Find the layer that errs and try other preprocessings (slower).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    bundle: Path,
    save_baseline: Path | None,
    ratchet: bool,
    junit: Path | None,
    markdown: Path | None,
    html: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Decide whether BUNDLE still gives PyTorch's answers, with what certainty, and why not.

    Every limit is judged by its 95 % interval: it fails only on evidence, and where there are too
    few pictures it says how many would decide. The exit code is 3 when a limit is broken, after
    every report was written.
    """
    from resdeploy.deploy.verification import verify as verify_bundle
    from resdeploy.deploy.written import check_writable, save_in_bundle

    baseline: Path | None = options["baseline"]
    if ratchet and baseline is None:
        raise click.UsageError("--update-baseline-if-better needs --baseline FILE")
    if save_baseline is not None and options["data"] is None:
        raise click.UsageError("--save-baseline needs pictures: add --data DIR")
    if save_baseline is not None and save_baseline == baseline:
        raise click.UsageError(
            "--baseline and --save-baseline name the same file, so a worse result would replace "
            "it: use --update-baseline-if-better"
        )
    check_writable(save_baseline, junit, markdown, html)
    with progress_bar(hidden=as_json) as progress:
        report = verify_bundle(bundle, progress=progress, **options)
        _write_reports(report, junit, markdown, html)
        saved = _save_baseline(report, save_baseline, ratchet)
    content = {**report.to_json(), "saved_baseline": None if saved is None else str(saved)}
    save_in_bundle(bundle, "verify.json", json.dumps(content, indent=1) + "\n")
    if as_json:
        print_json(content)
    else:
        _print_report(report)
    _say(report, saved)
    if report.verdict == "fail":
        ctx.exit(_GATE_FAILED)


def _write_reports(
    report: "VerifyReport", junit: Path | None, markdown: Path | None, html: Path | None
) -> None:
    from resdeploy.deploy import ci_reports
    from resdeploy.deploy.written import write_text

    if junit is not None:
        write_text(junit, ci_reports.junit(report))
    if markdown is not None:
        write_text(markdown, ci_reports.markdown(report))
    if html is not None:
        from resdeploy.deploy.report import html_report

        write_text(html, html_report(report))


def _save_baseline(report: "VerifyReport", path: Path | None, ratchet: bool) -> Path | None:
    """Write the baseline where it was asked for, or where the ratchet may move; returns where."""
    from resdeploy.deploy.baseline import baseline_text
    from resdeploy.deploy.written import write_text

    since = report.baseline
    if path is None and ratchet and since is not None and report.verdict != "fail":
        path = since.source if since.better() else None
    if path is None or report.evaluation is None:
        return None
    names = [variant.name for variant in report.variants]
    write_text(path, baseline_text(report.manifest, report.evaluation, names))
    return path


def _print_report(report: "VerifyReport") -> None:
    from resdeploy.deploy.verify_report import ROW_TITLES, row

    titles = [title if place < 3 else f">{title}" for place, title in enumerate(ROW_TITLES)]
    print_table(titles, [row(variant) for variant in report.variants])
    print_table(
        ("gate", "variant", "verdict", "why"),
        [(gate.name, gate.variant, gate.verdict, gate.sentence) for gate in report.gates],
    )
    if report.explanation is not None:
        _print_explanation(report.explanation)
    click.echo(f"{report.verdict}: {report.bundle} compared with {report.reference}")


def _print_explanation(explanation: "Explanation") -> None:
    for found in explanation.layers:
        click.echo(f"{found.variant}: {found.sentence}")
    if explanation.trials:
        rows = [(t.name, f"{t.top1:.2f}", f"{t.p_holm:.2g}") for t in explanation.trials]
        own = ("the bundle's own", f"{explanation.top1:.2f}", "")
        print_table(("preprocessing tried", ">top-1 %", ">p (Holm)"), [own, *rows])


def _say(report: "VerifyReport", saved: Path | None) -> None:
    """Remarks and annotations on stderr, which GitHub reads like stdout."""
    from resdeploy.deploy.ci_reports import annotations

    for remark in report.notes:
        note(f"note: {remark}")
    if saved is not None:
        note(f"saved the answers to {saved}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(report):
            note(line)
