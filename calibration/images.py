"""Chooses calibration pictures from a folder or a list, and streams them as input batches.

The choice is seeded and balanced over classes, and its order goes round the classes, so that any
first or last part of it is balanced too. Nothing is kept in memory beyond the batches in flight.
"""

import csv
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from resdeploy.deploy.errors import CalibrationError, InputError
from resdeploy.deploy.machine import cores
from resdeploy.deploy.pictures import find_pictures, in_order, open_picture
from resdeploy.deploy.preprocess import Preprocess

IMAGES = 512
_FEW = 32
_UNREADABLE_SHARE = 0.05
_HEADINGS = ("path", "file", "filename", "image")


@dataclass(frozen=True)
class Pictures:
    """Chosen pictures, the class of each ("" where unknown), and remarks for the user."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class Reading:
    """What was noticed while pictures were read: unreadable ones (with the reason), and pictures
    of a single colour."""

    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    single_colour: list[Path] = field(default_factory=list)

    def notes(self) -> list[str]:
        """The remarks, one line each."""
        lines = [f"skipped: {reason}" for _, reason in self.unreadable]
        if self.single_colour:
            lines.append(
                f"{len(self.single_colour)} pictures are of a single colour, "
                f"first {self.single_colour[0]}: they teach the ranges nothing"
            )
        return lines


def choose_pictures(source: Path, *, images: int = IMAGES, seed: int = 0) -> Pictures:
    """Choose up to `images` pictures, equally many of each class as far as there are enough.

    `source` is a folder (of class folders or of pictures) or a text or CSV file with a picture a
    line, `path` or `path,class`, relative to the file.

    Raises:
        CalibrationError: nothing there, or a list that cannot be read.
        ValueError: images < 1.
    """
    if images < 1:
        raise ValueError(f"images is {images}, expected at least 1")
    found = _pictures_of(source)
    by_class: dict[str, list[Path]] = defaultdict(list)
    for path, name in found:
        by_class[name].append(path)
    shuffle = random.Random(seed).shuffle
    for paths in by_class.values():
        shuffle(paths)
    rounds = zip_longest(*([(p, name) for p in paths] for name, paths in by_class.items()))
    chosen = [pair for turn in rounds for pair in turn if pair is not None][:images]
    chosen_paths = tuple(path for path, _ in chosen)
    return Pictures(
        paths=chosen_paths,
        classes=tuple(name for _, name in chosen),
        notes=tuple(_remarks(source, chosen_paths, by_class)),
    )


def pictures_sha256(paths: Sequence[Path]) -> str:
    """One hash over the pictures' bytes; their order and names do not matter.

    Raises:
        CalibrationError: a file cannot be read.
    """
    return hashlib.sha256("".join(sorted(_digests(paths))).encode()).hexdigest()


def read_batches(
    paths: Sequence[Path],
    preprocess: Preprocess,
    *,
    batch: int = 8,
    threads: int | None = None,
    reading: Reading | None = None,
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield batches (up to `batch`, 3, H, W) in the order of `paths`, decoding ahead in threads.

    Unreadable pictures are left out and noted in `reading`.

    Raises:
        CalibrationError: more than 5 % of the pictures are unreadable.
    """
    reading = Reading() if reading is None else reading

    def decode(path: Path) -> npt.NDArray[np.float32] | InputError:
        try:
            return preprocess.apply(open_picture(path))
        except InputError as error:
            return error

    pending: list[npt.NDArray[np.float32]] = []
    threads = threads or cores()
    decoded = in_order(decode, paths, threads=threads, ahead=max(batch, threads))
    for path, pixels in zip(paths, decoded, strict=True):
        if isinstance(pixels, InputError):
            reading.unreadable.append((path, str(pixels)))
            _check_unreadable(reading, len(paths))
            continue
        if all(channel.min() == channel.max() for channel in pixels):
            reading.single_colour.append(path)
        pending.append(pixels)
        if len(pending) == batch:
            yield np.stack(pending)
            pending = []
    if pending:
        yield np.stack(pending)


def _check_unreadable(reading: Reading, total: int) -> None:
    if len(reading.unreadable) > _UNREADABLE_SHARE * total:
        raise CalibrationError(
            f"{len(reading.unreadable)} of {total} calibration pictures cannot be read, at most "
            f"{_UNREADABLE_SHARE:.0%} may be: {reading.unreadable[-1][1]}; remove or replace them"
        )


def _pictures_of(source: Path) -> list[tuple[Path, str]]:
    try:
        if source.is_dir():
            return [(path, _class_of(path, source)) for path in find_pictures([source])]
        found = _listed(source)
    except InputError as error:
        raise CalibrationError(str(error)) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CalibrationError(f"{source}: not a folder or list of pictures: {reason}") from error
    if not found:
        raise CalibrationError(f"{source}: lists no pictures; expected lines path or path,class")
    return found


def _class_of(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _listed(source: Path) -> list[tuple[Path, str]]:
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    rows = [row for row in rows if row and row[0]]
    if rows and rows[0][0].lower() in _HEADINGS:
        rows = rows[1:]
    return [(source.parent / row[0], row[1] if len(row) > 1 else "") for row in rows]


def _remarks(source: Path, paths: Sequence[Path], by_class: dict[str, list[Path]]) -> Iterator[str]:
    if len(paths) < _FEW:
        yield (
            f"{source}: only {len(paths)} calibration pictures; {_FEW} are the least that is "
            "usual, some hundreds are better, spread over the classes"
        )
    if len(by_class) == 1 and "" not in by_class:
        yield (
            f"{source}: all calibration pictures are of one class, {next(iter(by_class))!r}: "
            "ranges may not fit the other classes"
        )
    twice = sum(times - 1 for times in Counter(_digests(paths, missing_ok=True)).values())
    if twice:
        yield f"{source}: {twice} of {len(paths)} calibration pictures are duplicates of others"


def _digests(paths: Sequence[Path], *, missing_ok: bool = False) -> list[str]:
    """Hexadecimal SHA-256 of each file; a file that is not there is skipped or refused."""
    digests = []
    for path in paths:
        try:
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            if not missing_ok:
                raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
    return digests
