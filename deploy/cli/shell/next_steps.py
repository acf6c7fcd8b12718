"""The last lines of a command: what was done in which time, and what a person would type next."""

import time
from pathlib import Path

from resdeploy.deploy.cli.output import note
from resdeploy.deploy.cli.shell.flags import said


def finish(done: str, *following: str) -> None:
    """On stderr: `done` with the time it took, then the commands that usually come next."""
    begun_s = said().begun_s
    seconds = time.monotonic() - begun_s
    note(f"{done} in {duration(seconds)}")
    for number, command in enumerate(following):
        note(f"{'next: ' if number == 0 else '  or: '}{command}", folded=False)


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 5 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def as_typed(path: Path) -> str:
    """A path as a shell takes it; of what was fetched from the Hub, its address."""
    from resdeploy.deploy.bundle.hub import address_of  # not for --help, which wants no NumPy

    text = address_of(path) or str(path)
    return f"'{text}'" if any(letter in text for letter in " ()&;*?[]$") else text
