"""How long steps report their progress; how it is shown is the caller's business."""

from collections.abc import Callable

# step, done, total; a total of 0 means that it is not known
Progress = Callable[[str, int, int], None]


def silent(step: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing: the library's default."""
