"""What commands print: small tables and JSON on stdout, progress on stderr of a terminal.

This is the only place that writes there, and `errors.shown` makes every text harmless. A
label or a file name may hold anything: control characters that move the cursor, escape sequences
that set a window's title or hide text, line breaks that forge a line, bytes that are no UTF-8.
"""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from resdeploy.deploy.cli.shell.flags import said
from resdeploy.deploy.errors import InputError, shown
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.system.streams import drop_output

if TYPE_CHECKING:
    from rich.progress import ProgressColumn
    from rich.table import Table

# while it is entered, no bars are drawn
Pause = Callable[[], AbstractContextManager[None]]

_LONGEST_LINE = 4000
_GAP = 3  # between columns
_LONG = 40  # characters, beyond which a cell is a sentence


def print_json(content: Any) -> None:
    """One JSON document on stdout, nothing else."""
    write(json_text(content))


def json_text(content: Any) -> str:
    """JSON as stdout can take it; infinity and NaN, unknown to JSON, are null."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    encoding = (sys.stdout and sys.stdout.encoding) or "utf-8"
    if not text.isascii() and text != text.encode(encoding, "replace").decode(encoding):
        text = json.dumps(content, indent=2)
    return text


def columns_that_fit(
    columns: Sequence[str], rows: Sequence[Sequence[str]], importance: Sequence[str]
) -> list[int]:
    """The places of the columns that a terminal shows without folding a word, the others dropped.

    `importance` names columns from the most important one on: each stays if there is room for it
    besides those before it and anything in it. Columns that it does not name always stay. In a pipe
    or a file all do.
    """
    names = [column.removeprefix(">") for column in columns]
    if not is_terminal(sys.stdout):
        return list(range(len(names)))
    room = shutil.get_terminal_size().columns
    widths = {
        name: _GAP + max(len(cell) for cell in (name, *(row[k] for row in rows)))
        for k, name in enumerate(names)
    }
    kept = [name for name in names if name not in importance]
    room -= sum(widths[name] for name in kept)
    filled = {name for k, name in enumerate(names) if any(row[k] for row in rows)}
    for name in importance:
        if name in filled and widths[name] <= room:
            kept.append(name)
            room -= widths[name]
    return [k for k, name in enumerate(names) if name in kept]


def print_what_fits(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    importance: Sequence[str],
    *,
    hint: str,
    title: str | None = None,
    styles: Mapping[str, str] | None = None,
) -> None:
    """The table of `columns_that_fit`, and which others there are; `hint` says how to see them."""
    kept = columns_that_fit(columns, rows, importance)
    chosen = [[cells[k] for k in kept] for cells in rows]
    print_table([columns[k] for k in kept], chosen, title=title, styles=styles)
    missing = [
        column.removeprefix(">")
        for k, column in enumerate(columns)
        if k not in kept and any(cells[k] for cells in rows)
    ]
    if missing:
        say(f"left out for want of width: {', '.join(missing)} ({hint})", folded=True)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    styles: Mapping[str, str] | None = None,
    continued: Sequence[int] | None = None,
) -> None:
    """A table on stdout; columns whose name begins with ">" are right-aligned.

    On a terminal long cells wrap, and a cell in `styles` gets its colour (never with NO_COLOR); in
    a pipe or a file nothing is cut, padded or coloured. Of a table that is printed in parts,
    `continued` are the least widths of the columns, empty for the first part.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = is_terminal(sys.stdout)
    console = Console(highlight=False, no_color=not terminal or bool(os.environ.get("NO_COLOR")))
    if not terminal:  # not console.is_terminal, which FORCE_COLOR makes true in a pipe
        console.width = 10_000
    heading = None if title is None else Text(shown(title))
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", pad_edge=False,
                  show_header=not continued)  # fmt: skip
    _add_columns(table, columns, rows, continued)
    for row in rows:
        table.add_row(*(Text(shown(cell), (styles or {}).get(cell, "")) for cell in row))
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    # an empty line stands before and after a table, and not between its parts
    write("\n".join(lines if continued is None else lines[bool(continued) : -1]))


def _add_columns(
    table: "Table",
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int] | None,
) -> None:
    from rich.text import Text

    for place, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        # long sentences wrap between words; everything else stays on one line
        longest = max((len(row[place]) for row in rows), default=0)
        before = widths[place] if widths else 0
        wraps = max(longest, before) > _LONG
        # Text, not markup: a label or file name may hold square brackets
        name = Text(shown(column.removeprefix(">")))
        least = None if wraps and is_terminal(sys.stdout) else before
        table.add_column(name, justify=justify, overflow="fold", no_wrap=not wraps, min_width=least)


def note(text: str, *, folded: bool = True) -> None:
    """A remark beside the result, on stderr; with -q there are none.

    What is to be copied, such as a command, must not be `folded`.
    """
    if not said().quiet:
        say(text, stderr=True, folded=folded)


@contextmanager
def progress_bar(*, hidden: bool = False) -> Iterator[Progress]:
    """Yield a `Progress` that draws bars on stderr, and shows nothing when that is no terminal."""
    with pausing_bar(hidden=hidden) as (draw, _):
        yield draw


@contextmanager
def pausing_bar(*, hidden: bool = False) -> Iterator[tuple[Progress, Pause]]:
    """`progress_bar`, and what takes the bars away while something else is printed."""
    if hidden or said().quiet or not is_terminal(sys.stderr):
        yield silent, nullcontext
        return
    with bars() as (draw, _, paused):
        yield draw, paused


def _columns() -> tuple["ProgressColumn", ...]:
    """What stands in the line of a step."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class _Count(MofNCompleteColumn):
        """3/20; nothing where the total is not known."""

        def render(self, task: Task) -> Text:
            return Text("") if task.total is None else super().render(task)

    return (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


@contextmanager
def bars() -> Iterator[tuple[Progress, Callable[[str], None], Pause]]:
    """Yield a `Progress` on stderr's terminal, what writes a line above its bars, and a pause."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(*_columns(), console=Console(stderr=True), transient=True) as bars_shown:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars_shown.add_task(shown(step), total=total or None)
            for name, task in tasks.items():
                bars_shown.update(
                    task, visible=name == step
                )  # a builder's phases nest and come back
            bars_shown.update(tasks[step], completed=done, total=total or None)

        @contextmanager
        def paused() -> Iterator[None]:
            bars_shown.stop()
            yield
            bars_shown.start()

        def above(line: str) -> None:
            bars_shown.console.print(shown(line), markup=False, highlight=False)

        yield report, above, paused


def say(text: object, *, stderr: bool = False, folded: bool = False) -> None:
    """Write one line, made harmless and of bounded length.

    One that is `folded` goes on below, on a terminal, where a word would be cut.
    """
    line = shown(text)
    if len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]}… ({len(line)} characters)"
    if folded and is_terminal(sys.stderr if stderr else sys.stdout):
        line = "\n".join(folded_lines(line))
    write(line, stderr=stderr)


def folded_lines(text: str, *, indent: int = 0) -> list[str]:
    """Text in lines that fit the terminal behind `indent` columns; no word is cut."""
    width = shutil.get_terminal_size().columns - indent
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [text]


def write(
    text: str, *, stderr: bool = False, newline: bool = True, color: bool | None = None
) -> None:
    """Write what is harmless already: lines of our own, tables, JSON, styled texts.

    What stderr cannot take is dropped, for there is nobody to tell.

    Raises:
        InputError: stdout is closed or full.
        BrokenPipeError: who read stdout left.
    """
    stream: TextIO | None = sys.stderr if stderr else sys.stdout
    if stream is None:
        if stderr:
            return
        raise InputError("stdout is closed: nothing can be printed")
    encoding = stream.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.echo(text, err=stderr, nl=newline, color=color)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        drop_output(stream)
        if not stderr:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"stdout cannot be written: {reason}") from error


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it; a stream that was closed is none."""
    return stream is not None and stream.isatty()
