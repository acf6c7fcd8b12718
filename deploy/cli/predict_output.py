"""What `resdeploy predict` shows: a table of answers as they come, then counts per class."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resdeploy.deploy.cli.output import Pause, is_terminal, note, print_table
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.gather import NamedImage
from resdeploy.deploy.inference.prediction import Prediction

Answer = list[Prediction] | InputError

_NAME_LEAST = 16  # characters of a path that stay, however narrow the terminal
_NAME_MOST = 40  # beyond it a cell would be folded
_CLASSES_SHOWN = 12
_ROWS_AT_ONCE = 200  # the first of them decide on the widths of the columns
_UNSURE = "unsure"
_COLUMNS = ("image", "class", ">probability", "then")


@dataclass(frozen=True)
class Rows:
    """Every image, its answer as it comes, and the least probability that one must have."""

    images: Sequence[NamedImage]
    answers: Iterator[Answer]
    labels: Sequence[str]
    min_probability: float = 0.0

    def certain(self, answer: list[Prediction]) -> list[Prediction]:
        """The classes of an answer that are probable enough."""
        return [p for p in answer if p.probability >= self.min_probability]


class Output(Protocol):
    """One form in which answers are wanted; it takes the next image, and at last ends."""

    def add(self, image: NamedImage, answer: Answer) -> None:
        """Take the next image."""

    def end(self) -> None:
        """Print or write what was waiting for the last one."""


class Table:
    """One image in full, or a line for each image, some hundred at a time, and then the counts."""

    def __init__(self, rows: Rows, paused: Pause) -> None:
        self._rows = rows
        self._paused = paused
        self._waiting: list[tuple[NamedImage, Answer]] = []
        # none of a table that is printed at once
        self._widths: list[int] | None = [] if len(rows.images) > _ROWS_AT_ONCE else None
        self._counts = _Counts(rows)

    def add(self, image: NamedImage, answer: Answer) -> None:
        """The next image.

        Raises:
            InputError: stdout is closed or full.
            BrokenPipeError: who read stdout left.
        """
        self._waiting.append((image, answer))
        if isinstance(answer, list):
            self._counts.add(image, answer)
        if len(self._waiting) == _ROWS_AT_ONCE:
            with self._paused():
                self._print()

    def end(self) -> None:
        """Print what is left, and the counts.

        Raises:
            InputError, BrokenPipeError: as `add`.
        """
        if len(self._rows.images) == 1:
            ((image, answer),) = self._waiting
            if isinstance(answer, list):
                _print_one(self._rows, image, answer)
                return
        if self._waiting:
            self._print()
        self._counts.show()

    def _print(self) -> None:
        cells = [_row(self._rows, image, answer) for image, answer in self._waiting]
        self._waiting.clear()
        print_table(_COLUMNS, cells, continued=self._widths)
        names = [column.removeprefix(">") for column in _COLUMNS]
        widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
        before = self._widths or widths
        self._widths = [max(pair) for pair in zip(before, widths, strict=True)]


def shortened(name: str, width: int) -> str:
    """A path with its middle left out, so that its beginning and its file name stay."""
    if len(name) <= width:
        return name
    tail = min(len(Path(name).name) + 1, width - 4)
    tail = max(tail, width // 2)
    return f"{name[: width - tail - 1]}…{name[-tail:]}"


def reason(image: NamedImage, error: InputError) -> str:
    """Why there is no answer, without the file's name, which stands before it."""
    return str(error).removeprefix(f"{image.name}: ").removeprefix(f"{image.path}: ")


class _Counts:
    """How many images each class got and, where folders name the classes, how many rightly."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._classes = {*rows.labels} - {""}
        self._images: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        self._named = True  # the class, by the folder of every image

    def add(self, image: NamedImage, answer: list[Prediction]) -> None:
        certain = self._rows.certain(answer)
        first, folder = certain[0].label if certain else _UNSURE, image.path.parent.name
        self._images[first] += 1
        self._right[first] += first == folder
        self._named = self._named and folder in self._classes

    def show(self) -> None:
        counts = self._images.most_common()
        if not counts:
            return
        shown = counts[:_CLASSES_SHOWN]
        if self._named:
            table = [(label, str(count), str(self._right[label])) for label, count in shown]
            print_table(("class", ">images", ">rightly"), table)
        else:
            print_table(("class", ">images"), [(label, str(count)) for label, count in shown])
        if len(counts) > len(shown):
            rest = sum(count for _, count in counts[_CLASSES_SHOWN:])
            note(f"{len(counts) - len(shown)} other classes have {rest} images")
        if self._named:
            hits, all_images = self._right.total(), self._images.total()
            told = f"{hits} of {all_images} images; their folders name the classes"
            note(f"accuracy {hits / all_images:.2%}: {told}")


def _print_one(rows: Rows, image: NamedImage, answer: list[Prediction]) -> None:
    found = [(p.label, str(p.index), f"{p.probability:.2%}") for p in rows.certain(answer)]
    print_table((_name(image), ">index", ">probability"), found)
    if not found:
        note(f"no class reaches {rows.min_probability:.0%}")


def _row(rows: Rows, image: NamedImage, answer: Answer) -> tuple[str, str, str, str]:
    if not isinstance(answer, list):
        return _name(image), "error", "", reason(image, answer)
    certain = rows.certain(answer)
    if not certain:
        first = answer[0]
        return _name(image), _UNSURE, "", f"{first.label} {first.probability:.1%}"
    first, *others = certain
    following = ", ".join(f"{p.label} {p.probability:.1%}" for p in others)
    return _name(image), first.label, f"{first.probability:.2%}", following


def _name(image: NamedImage) -> str:
    """The name as it fits a terminal; whole in a pipe or a file."""
    if not is_terminal(sys.stdout):
        return image.name
    room = shutil.get_terminal_size().columns // 3
    return shortened(image.name, max(_NAME_LEAST, min(room, _NAME_MOST)))
