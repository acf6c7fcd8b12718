"""Reads what `--data` names: labelled images in class folders or a list, or plain images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Indices
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.files import find_images, labelled_images
from resdeploy.deploy.images.lists import read_image_list
from resdeploy.deploy.images.spread import Spread

# The largest share of images that may be unreadable; a wrong folder exceeds it at once.
UNREADABLE_SHARE = 0.05


@dataclass(frozen=True)
class Images:
    """Image files, and their true classes (N,) where folders or a list name them.

    `workers` read them where this process does not; their paths are then for reports alone.
    """

    paths: tuple[Path, ...]
    truth: Indices | None
    workers: Spread | None = None

    def spread(self, count: int) -> "Images":
        """At most `count` of them, evenly spaced, so that sorted class folders all take part."""
        chosen = evenly_spaced(len(self.paths), count)
        truth = None if self.truth is None else self.truth[chosen]
        return Images(tuple(self.paths[i] for i in chosen), truth)


def read_data(data: Path, labels: Sequence[str]) -> Images:
    """The images of `--data`: class folders or a list `path,label`, else a plain folder.

    Raises:
        InputError: nothing there, no images, or a class that is not among `labels`.
    """
    if not data.exists():
        raise InputError(f"{data}: no such file or folder of images")
    if labels and (data.is_file() or _has_class_folders(data)):
        labelled = labelled_images(data, labels)
        truth = np.array([image.index for image in labelled], np.int64)
        return Images(tuple(image.path for image in labelled), truth)
    return Images(tuple(find_images([data])), None)


def plain_images(source: Path) -> tuple[Path, ...]:
    """The images of a folder, or those that a list names, whatever classes they are said to be of.

    Raises:
        InputError: nothing there, or a list that cannot be read.
    """
    if source.is_dir():
        return tuple(find_images([source]))
    return tuple(path for path, _ in read_image_list(source))


def check_labelled(data: Path | None) -> None:
    """Raise InputError unless the images of `--data` have classes that can be counted on."""
    if data is None or not (data.is_file() or _has_class_folders(data)):
        raise InputError(
            "--max-drop needs labelled images to count on: give --data with class folders"
        )


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most `count` of the numbers 0 … total - 1, evenly spaced, the first and last included."""
    return [round(i) for i in np.linspace(0, total - 1, min(total, count))]


def check_readable(unreadable: Sequence[tuple[Path, str]], total: int) -> None:
    """Raise InputError if more than `UNREADABLE_SHARE` of `total` images cannot be read.

    Call it after every image: a wrong folder should not take an hour to refuse.
    """
    if len(unreadable) <= UNREADABLE_SHARE * total:
        return
    path, reason = unreadable[-1]
    raise InputError(
        f"{len(unreadable)} of {total} images cannot be read, limit: {UNREADABLE_SHARE:.0%}; "
        f"the last one is {path}: {reason}; remove or replace them"
    )


def _has_class_folders(folder: Path) -> bool:
    return folder.is_dir() and any(
        entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir()
    )
