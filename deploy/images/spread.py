"""How a pass over many images is spread over workers, here or on other machines.

A step that can be spread says what a worker opens once and what it makes of a share of the images;
where that happens is the business of whoever is handed in. What a share gives must depend on its
images alone, so that a share whose worker died can be given to another.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

State = TypeVar("State")
Result = TypeVar("Result")

# the bundle, where the worker has it → whatever it keeps open, sessions for example
Open = Callable[[Path], AbstractContextManager[State]]
# what is open, the number of the share and its images as files → the result
Work = Callable[[State, int, Sequence[Path]], Result]


class Spread(Protocol):
    """Runs `work` on every share of the images and yields the results in order."""

    def __call__(
        self, opened: Open[State], work: Work[State, Result], shares: Sequence[range]
    ) -> Iterator[Result]:
        """Both functions and the results are pickled; `shares` are positions of images."""
        ...
