"""The flags that may stand anywhere on the line, and when the command began."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import click

# flags that mean the same wherever they stand on the line
ANYWHERE = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--debug": "debug"}


@dataclass(frozen=True)
class Said:
    """What the flags that may stand anywhere said; `begun_s` is on the monotonic clock."""

    flags: frozenset[str] = frozenset()
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def quiet(self) -> bool:
        """No remarks and no progress: the result alone."""
        return "quiet" in self.flags


def said() -> Said:
    """The flags of the command that runs; none where a function is called without a command."""
    context = click.get_current_context(silent=True)
    found = None if context is None else context.find_root().obj
    return found if isinstance(found, Said) else Said()


def without_flags(args: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """The words without the flags that may stand anywhere; what follows `--` stays as it is."""
    end = args.index("--") if "--" in args else len(args)
    words = [word for word in args[:end] if word not in ANYWHERE]
    flags = frozenset(ANYWHERE[word] for word in args[:end] if word in ANYWHERE)
    return [*words, *args[end:]], flags
