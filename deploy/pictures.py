"""Finds pictures on disk, opens them, and decodes them ahead of whoever needs the pixels."""

import csv
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.preprocess import Preprocess

# What is looked for inside a folder; a file named explicitly may be anything Pillow reads.
# fmt: off
EXTENSIONS = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".ico", ".avif",
])
# fmt: on

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class LabelledPicture:
    """A picture and the index of its true class."""

    path: Path
    index: int


def open_picture(path: str | Path) -> Image.Image:
    """Decode a picture file to RGB, as torchvision's `ImageFolder` does.

    Raises:
        InputError: the file is missing, empty, no picture, cut short, or over Pillow's
            decompression-bomb limit.
    """
    try:
        with Image.open(path) as image:
            image.load()
            # convert() would copy, which for a photograph of 12 megapixels is another 48 MB
            return image if image.mode == "RGB" else image.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        empty = os.path.getsize(path) == 0
        reason = "the file is empty" if empty else "not a picture in any format Pillow reads"
        raise InputError(f"{path}: {reason}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels for a picture ({error})") from error
    except OSError as error:
        # an error of the system (a folder, no permission) has a number, one of a decoder has not
        reason = f"cannot be decoded: {_one_line(error)}"
        if error.strerror is not None:
            reason = f"cannot be read: {error.strerror}"
        raise InputError(f"{path}: {reason}") from error
    except Exception as error:
        # damaged files make Pillow's decoders raise ValueError, SyntaxError, EOFError,
        # RuntimeError (AVIF), MemoryError, struct.error and others
        raise InputError(f"{path}: cannot be decoded: {_one_line(error)}") from error


def read_input(
    path: str | Path, preprocess: Preprocess, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Open a picture and preprocess it: (3, H, W) float32, written into `out` when given.

    Raises:
        InputError: as `open_picture` and `Preprocess.apply`; the message begins with the path.
    """
    image = open_picture(path)
    try:
        return preprocess.apply(image, out)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def find_pictures(sources: Iterable[str | Path]) -> list[Path]:
    """Expand files, folders (searched recursively, sorted) and globs into picture paths.

    A file named explicitly is passed on even if it is not there: opening it will say so, and the
    other pictures go on. A folder that a glob matches is searched too, as it is where the shell
    has expanded the glob. Hidden files and folders are left out, links to folders are followed.

    Raises:
        InputError: a folder or glob holds no picture.
    """
    pictures: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = _pictures_below(path)
        elif has_magic(str(source)) and not path.exists():
            found = _pictures_of_glob(str(source))
        else:
            found = [path]
        if not found:
            raise InputError(f"{source}: no pictures there (looked for {_examples()})")
        pictures += found
    return pictures


def labelled_pictures(source: str | Path, labels: Sequence[str]) -> list[LabelledPicture]:
    """Read labelled pictures: a folder of class folders, or a list or CSV file `path,label`.

    A class folder (or label in a list) is named by a label of the bundle or by its class index.
    Paths in a list are relative to the list's own folder.

    Raises:
        InputError: nothing there, or a class name that is not among `labels`.
    """
    source = Path(source)
    if source.is_dir():
        rows = [
            (path, path.relative_to(source).parts[0])
            for path in _pictures_below(source)
            if len(path.relative_to(source).parts) > 1
        ]
        if not rows:
            raise InputError(
                f"{source}: no class folders with pictures in them; expected "
                f"{source.name}/CLASS/PICTURE with {_examples()}"
            )
    elif source.is_file():
        rows = _rows_of_list(source)
    else:
        raise InputError(f"{source}: no such file or folder")
    index_of = _index_of_names({name for _, name in rows}, labels, source)
    return [LabelledPicture(path, index_of[name]) for path, name in rows]


def in_order(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    threads: int,
    ahead: int | None = None,
) -> Iterator[Result]:
    """Yield function(job) in the order of `jobs`, computed by threads that run ahead.

    At most `ahead` results (default: two per thread) wait unconsumed, so memory stays bounded;
    closing the iterator early abandons the rest.
    """
    ahead = 2 * threads if ahead is None else ahead
    waiting: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="resdeploy")
    try:
        for job in jobs:
            waiting.append(executor.submit(function, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _pictures_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    seen: set[str] = set()  # a link may point to a folder above it
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [f for f in folders if not f.startswith(".")]
        if real not in seen:
            # a link that leads nowhere stays in: opening it will say so
            found += [Path(parent, name) for name in files if _named_like_a_picture(name)]
        seen.add(real)
    return sorted(found)


def _pictures_of_glob(pattern: str) -> list[Path]:
    found: list[Path] = []
    for match in map(Path, sorted(glob(pattern, recursive=True))):
        if match.is_dir():
            found += _pictures_below(match)
        elif _named_like_a_picture(match.name):
            found.append(match)
    return list(dict.fromkeys(found))  # `**` matches a folder and what is in it


def _named_like_a_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


def _rows_of_list(source: Path) -> list[tuple[Path, str]]:
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first path
        with source.open(newline="", encoding="utf-8-sig") as file:
            lines = [row for row in csv.reader(file, skipinitialspace=True) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source}: cannot be read as a list of path,label: {error}") from error
    if lines and [cell.strip().lower() for cell in lines[0][:2]] == ["path", "label"]:
        lines = lines[1:]
    if not lines:
        raise InputError(f"{source}: no lines in it, expected lines of the form path,label")
    if short := [row for row in lines if len(row) < 2]:
        raise InputError(f"{source}: got {short[0][0]!r}, expected lines of the form path,label")
    return [(source.parent / row[0].strip(), row[1].strip()) for row in lines]


def _index_of_names(names: set[str], labels: Sequence[str], source: Path) -> dict[str, int]:
    counts = Counter(labels)
    unknown = sorted(name for name in names if not counts[name])
    if not unknown:
        if twice := sorted(name for name in names if counts[name] > 1):
            raise InputError(
                f"{source}: the class {twice[0]!r} has several indices in the labels: "
                "name its folders by class index"
            )
        index_of = {label: index for index, label in enumerate(labels)}
        return {name: index_of[name] for name in names}
    if all(name.isdecimal() and int(name) < len(labels) for name in names):
        return {name: int(name) for name in names}
    raise InputError(
        f"{source}: class {unknown[0]!r} is not among the {len(labels)} labels of the bundle "
        f"({', '.join(list(labels)[:5])}{', …' if len(labels) > 5 else ''})"
    )


def _examples() -> str:
    return "*.jpg, *.png, *.webp and others"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
