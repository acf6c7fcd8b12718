"""What commands print: small tables and JSON on stdout, progress on stderr of a terminal."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import click

# step, done, total; a total of 0 means that it is not known
Progress = Callable[[str, int, int], None]


def silent(step: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing: the library's default."""


def print_json(content: Any) -> None:
    """One JSON document on stdout, nothing else; infinity and NaN, unknown to JSON, are null."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if text != _printable(text):
        text = json.dumps(content, indent=2)
    click.echo(text)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None
) -> None:
    """A table on stdout; columns whose name begins with ">" are right-aligned.

    On a terminal long cells wrap; in a pipe or a file nothing is cut or padded.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not sys.stdout.isatty():  # not console.is_terminal, which FORCE_COLOR makes true in a pipe
        console.width = 10_000
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
    for row in rows:
        # Text, not markup: a label or file name may hold square brackets
        table.add_row(*(Text(_printable(cell)) for cell in row))
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _printable(text: str) -> str:
    """`text` with what stdout's encoding lacks escaped, such as file names that are not UTF-8."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def note(text: str) -> None:
    """A remark beside the result, on stderr."""
    click.echo(text, err=True)


@contextmanager
def progress_bar(*, hidden: bool = False) -> Iterator[Progress]:
    """Yield a `Progress` that draws bars on stderr, or nothing when stderr is no terminal."""
    if hidden or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total or None)
            for name, task in tasks.items():
                bars.update(task, visible=name == step)  # a builder's phases nest and come back
            bars.update(tasks[step], completed=done, total=total or None)

        yield report
