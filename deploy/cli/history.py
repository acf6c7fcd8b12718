"""`resdeploy history`: what `verify --record` wrote, as a table with a chart."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resdeploy.deploy.cli.options import json_option
from resdeploy.deploy.cli.output import note, print_json, print_table, say
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish

if TYPE_CHECKING:
    from resdeploy.deploy.verification.reports.history import Run, Worse

_CHART = 24  # characters


@click.command(
    cls=Command,
    epilog="resdeploy history history.jsonl\nresdeploy history history.jsonl --json",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def history(file: Path, as_json: bool) -> None:
    """Show the runs that verify --record FILE wrote, and the first that was worse beyond noise."""
    from resdeploy.deploy.verification.reports.history import first_worse, read_history

    found = read_history(file)
    for remark in found.remarks:
        note(f"note: {file}: {remark}")
    variants: dict[str, list[Run]] = {}
    for run in found.runs:
        variants.setdefault(run.variant, []).append(run)
    if as_json:
        print_json({variant: _as_json(runs) for variant, runs in variants.items()})
        return
    any_worse = False
    for variant, runs in variants.items():
        worse = first_worse(runs)
        any_worse |= worse is not None
        _print_variant(variant, runs, worse)
        if worse is not None:
            say(
                f"{variant}: run {worse.place + 1} is the first that was worse beyond noise: "
                f"{worse.drop:.2f} points below run {worse.best + 1} (p = {worse.p:.2g})"
            )
    finish(
        f"read {len(found.runs)} results",
        f"resdeploy verify BUNDLE --data DIR --record {as_typed(file)}",
        "resdeploy verify BUNDLE --data DIR --explain"
        if any_worse
        else f"resdeploy history {as_typed(file)} --json",
    )


def _as_json(runs: list["Run"]) -> dict[str, Any]:
    from resdeploy.deploy.verification.reports.history import first_worse

    worse = first_worse(runs)
    keys = ("time", "commit", "verdict", "images", "images_sha256", "top1")
    told = [{key: getattr(run, key) for key in keys} for run in runs]
    for row, run in zip(told, runs, strict=True):
        row["top1_ci95"] = run.top1_ci95 and [run.top1_ci95.low, run.top1_ci95.high]
    return {
        "runs": told,
        "first_worse": None if worse is None else asdict(worse),
    }


def _print_variant(variant: str, runs: list["Run"], worse: "Worse | None") -> None:
    low, high = _axis(runs)
    rows = [
        (
            str(place + 1),
            run.time[:10],
            run.commit[:7],
            run.verdict,
            str(run.images),
            "" if run.top1 is None else f"{run.top1:.2f}",
            _bar(run, low, high),
            "◀ worse" if worse is not None and worse.place == place else "",
        )
        for place, run in enumerate(runs)
    ]
    axis = f"{low:.1f} … {high:.1f} %"
    columns = (">run", "date", "commit", "verdict", ">images", ">top-1 %", axis, "")
    print_table(columns, rows, title=variant)


def _axis(runs: list["Run"]) -> tuple[float, float]:
    """The ends of the chart: all intervals fit in."""
    intervals = [run.top1_ci95 for run in runs if run.top1_ci95 is not None]
    if not intervals:
        return 0.0, 100.0
    low, high = min(i.low for i in intervals), max(i.high for i in intervals)
    return low, max(high, low + 1.0)


def _bar(run: "Run", low: float, high: float) -> str:
    """The interval as a line, the accuracy as a dot on it."""
    if run.top1 is None or run.top1_ci95 is None:
        return ""

    def column(value: float) -> int:
        return round((value - low) / (high - low) * (_CHART - 1))

    start, stop = column(run.top1_ci95.low), column(run.top1_ci95.high)
    line = ["─" if start <= k <= stop else " " for k in range(_CHART)]
    line[column(run.top1)] = "●"
    return "".join(line)
