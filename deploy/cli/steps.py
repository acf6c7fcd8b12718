"""Shows the steps of a long command: what runs now, and what has run with its duration."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from resdeploy.deploy.cli.output import bars, is_terminal, note, write
from resdeploy.deploy.errors import shown
from resdeploy.deploy.progress import Progress


@contextmanager
def progress_steps(*, lines: bool = True) -> Iterator[Progress]:
    """Yield a `Progress` whose finished steps stay on stderr, each with its seconds.

    On a terminal the current step has a bar. Elsewhere a step is one line, which begins when the
    step does and is completed when it ends; without `lines` nothing is shown there.
    """
    if is_terminal(sys.stderr):
        with bars() as (draw, write, _), _timed(draw, lambda _: None, write) as report:
            yield report
    elif lines:
        with _timed(_nothing, _begin_line, _complete_line) as report:
            yield report
    else:
        yield _nothing


@contextmanager
def _timed(
    draw: Progress, begin: Callable[[str], None], finish: Callable[[str], None]
) -> Iterator[Progress]:
    """`draw`, and around each step `begin` with its name and `finish` with its line."""
    current, since = "", 0.0

    def end() -> None:
        if current:
            finish(f"{current}: {time.monotonic() - since:.1f} s")

    def report(step: str, done: int, total: int) -> None:
        nonlocal current, since
        if step != current:
            end()
            begin(step)
            current, since = step, time.monotonic()
        draw(step, done, total)

    try:
        yield report
    except BaseException:
        if current:
            finish(f"{current}: not finished")
        raise
    end()


def _begin_line(step: str) -> None:
    write(shown(step), stderr=True, newline=False)


def _complete_line(line: str) -> None:
    note(line[line.rindex(":") :])


def _nothing(step: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
