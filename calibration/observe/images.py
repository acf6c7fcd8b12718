"""Chooses calibration images from a folder or a list, and streams them as input batches.

The choice is seeded and balanced over classes, and its order goes round the classes, so that any
first or last part of it is balanced too. What is kept in memory beyond the batches in flight is
bounded: the pixels of images that are read several times.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np

from resdeploy.deploy.arrays import Bytes, Float32s
from resdeploy.deploy.defaults import CALIBRATION_IMAGES, SEED
from resdeploy.deploy.errors import CalibrationError, InputError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.images.dataset import UNREADABLE_SHARE
from resdeploy.deploy.images.files import find_images, open_image
from resdeploy.deploy.images.lists import read_image_list
from resdeploy.deploy.images.prefetch import in_order
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.images.spread import Spread
from resdeploy.deploy.machine import cores

_FEW = 32
# 440 images of 224 x 224 pixels.
_KEPT_BYTES = 64 << 20

Image = TypeVar("Image")


@dataclass(frozen=True)
class CalibrationImages:
    """Chosen images, the class of each ("" where unknown), and remarks for the user.

    `workers` have them too, at the same positions, and measure on them.
    """

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    workers: Spread | None = None


@dataclass
class Reading:
    """What was noticed while images were read, by position: a second pass notes nothing twice.

    unreadable: the reasons. single_colour: the paths.
    """

    unreadable: dict[int, str] = field(default_factory=dict)
    single_colour: dict[int, Path] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """The remarks, one line each."""
        lines = [f"skipped: {reason}" for reason in self.unreadable.values()]
        if self.single_colour:
            lines.append(
                f"{len(self.single_colour)} images are of a single colour, "
                f"first {next(iter(self.single_colour.values()))}: they teach the ranges nothing"
            )
        return lines


class DecodedImages:
    """Images by path, with the pixels that were read kept as bytes for the next pass.

    Decoding takes longer than most networks do. Beyond `most_bytes` images are decoded anew.
    """

    def __init__(self, preprocess: Preprocess, most_bytes: int = _KEPT_BYTES) -> None:
        """No image is read yet."""
        self._preprocess, self._most_bytes = preprocess, most_bytes
        self._kept: dict[Path, Bytes] = {}

    def read(self, path: Path) -> Float32s:
        """The network's input (3, H, W); may be called from several threads.

        Raises:
            InputError: it cannot be read (see `open_image` and `Preprocess.apply`).
        """
        pixels = self._kept.get(path)
        if pixels is None:
            pixels = self._preprocess.pixels(open_image(path))
            if (len(self._kept) + 1) * pixels.nbytes <= self._most_bytes:
                self._kept[path] = pixels
        return self._preprocess.normalized(pixels)

    def try_read(self, path: Path) -> Float32s | InputError:
        """`read`, with the error as a result."""
        try:
            return self.read(path)
        except InputError as error:
            return error


def choose_images(
    source: Path, *, images: int = CALIBRATION_IMAGES, seed: int = SEED
) -> CalibrationImages:
    """Choose up to `images` images, equally many of each class as far as there are enough.

    `source` is a folder (of class folders or of images) or a text or CSV file with an image a
    line, `path` or `path,class`, relative to the file.

    Raises:
        CalibrationError: nothing there, or a list that cannot be read.
        ValueError: images < 1.
    """
    if images < 1:
        raise ValueError(f"images is {images}, expected at least 1")
    found = _images_of(source)
    chosen = balanced(found, images=images, seed=seed)
    return chosen_images(chosen, str(source), {name for _, name in found})


def balanced(
    found: Sequence[tuple[Image, str]], *, images: int, seed: int
) -> list[tuple[Image, str]]:
    """Up to `images` of what was found with its class, drawn by turns from every class."""
    by_class: dict[str, list[Image]] = defaultdict(list)
    for image, name in found:
        by_class[name].append(image)
    shuffle = random.Random(seed).shuffle
    for of_class in by_class.values():
        shuffle(of_class)
    rounds = zip_longest(*([(i, name) for i in group] for name, group in by_class.items()))
    return [pair for turn in rounds for pair in turn if pair is not None][:images]


def chosen_images(
    chosen: Sequence[tuple[Path, str]], source: str, classes: Collection[str]
) -> CalibrationImages:
    """Chosen files with their classes, and what is to be remarked on them.

    Args:
        source: where they are from, as the remarks call it.
        classes: all that are there.
    """
    paths = tuple(path for path, _ in chosen)
    names = tuple(name for _, name in chosen)
    return CalibrationImages(paths, names, tuple(_remarks(source, paths, classes)))


def images_sha256(paths: Sequence[Path]) -> str:
    """One hash over the images' bytes; their order and names do not matter.

    A file that cannot be read has no part in it: whoever reads the images counts those.
    """
    return hashlib.sha256("".join(sorted(_digests(paths))).encode()).hexdigest()


def read_batches(
    paths: Sequence[Path],
    images: Preprocess | DecodedImages,
    *,
    batch: int = 8,
    threads: int | None = None,
    reading: Reading | None = None,
    total: int | None = None,
) -> Iterator[Float32s]:
    """Yield batches (up to `batch`, 3, H, W) in the order of `paths`, decoding ahead in threads.

    `images` keep what was decoded, or say how to decode what is read once. Unreadable images are
    left out and noted in `reading`; `paths` are a share of `total`.

    Raises:
        CalibrationError: more than 5 % of the images are unreadable.
    """
    reading = Reading() if reading is None else reading
    images = DecodedImages(images, most_bytes=0) if isinstance(images, Preprocess) else images
    pending: list[Float32s] = []
    threads = threads or cores()
    decoded = in_order(images.try_read, paths, threads=threads, ahead=max(batch, threads))
    for number, (path, pixels) in enumerate(zip(paths, decoded, strict=True)):
        if isinstance(pixels, InputError):
            reading.unreadable[number] = str(pixels)
            check_unreadable(reading, total or len(paths), str(pixels))
            continue
        if all(channel.min() == channel.max() for channel in pixels):
            reading.single_colour[number] = path
        pending.append(pixels)
        if len(pending) == batch:
            yield np.stack(pending)
            pending = []
    if pending:
        yield np.stack(pending)


def check_unreadable(reading: Reading, total: int, reason: str) -> None:
    """Raise CalibrationError if more than 5 % of `total` images cannot be read."""
    if len(reading.unreadable) > UNREADABLE_SHARE * total:
        raise CalibrationError(
            f"{len(reading.unreadable)} of {total} calibration images cannot be read "
            f"(limit: {UNREADABLE_SHARE:.0%}): {reason}; remove or replace them"
        )


def _images_of(source: Path) -> list[tuple[Path, str]]:
    try:
        if source.is_dir():
            return [(path, _class_of(path, source)) for path in find_images([source])]
        return read_image_list(source)
    except InputError as error:
        raise CalibrationError(str(error)) from error


def _class_of(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _remarks(source: str, paths: Sequence[Path], classes: Collection[str]) -> Iterator[str]:
    if len(paths) < _FEW:
        yield (
            f"{source}: only {len(paths)} calibration images; {_FEW} are the least that is "
            "usual, some hundreds are better, spread over the classes"
        )
    if len(classes) == 1 and "" not in classes:
        yield (
            f"{source}: all calibration images are of one class, {next(iter(classes))!r}: "
            "ranges may not fit the other classes"
        )
    twice = sum(times - 1 for times in Counter(_digests(paths)).values())
    if twice:
        yield f"{source}: {twice} of {len(paths)} calibration images are duplicates of others"


def _digests(paths: Sequence[Path]) -> list[str]:
    """Hexadecimal SHA-256 of each file that can be read."""
    digests = []
    for path in paths:
        with suppress(OSError):
            digests.append(sha256_file(path))
    return digests
