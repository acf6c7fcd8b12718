"""What the benchmarks share: options, interleaved runs, medians, a table and JSON."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def parsed_and_pinned(parser: argparse.ArgumentParser, *, rounds: int) -> argparse.Namespace:
    """The command line with `--threads`, `--rounds` and `--json`; the process keeps to as many
    cores as threads."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    return options


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def interleaved(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every action in every round; one uncounted round first warms files and caches.

    The actions take turns, in reverse order every second round, so that whatever else the machine
    does falls on all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        order = list(actions.items())
        for name, action in order if number % 2 else reversed(order):
            value = seconds(action)
            if number > 0:
                taken[name].append(value)
    return taken


def medians(taken: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in taken.items()}


def show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = 120
) -> None:
    """A table on stdout; all columns but the first are right-aligned."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=width, highlight=False).print(table)


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Keep the figures, every single run included, with the machine they were taken on."""
    from resdeploy.deploy.machine import cpu_line

    if path is not None:
        path.write_text(json.dumps({"machine": cpu_line(), **result}, indent=2) + "\n")
