"""Finds pictures on disk, opens them, and decodes them ahead of whoever needs the pixels."""

import csv
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from resdeploy.deploy.errors import InputError

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


def cores() -> int:
    """Processors this process may run on, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_picture(path: str | Path) -> Image.Image:
    """Decode a picture file to RGB, as torchvision's `ImageFolder` does.

    Raises:
        InputError: the file is missing, empty, no picture, cut short, or over Pillow's
            decompression-bomb limit.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        empty = os.path.getsize(path) == 0
        reason = "the file is empty" if empty else "not a picture in any format Pillow reads"
        raise InputError(f"{path}: {reason}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels for a picture ({error})") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        # Pillow's decoders raise all of these for damaged files
        raise InputError(f"{path}: cannot be decoded: {_one_line(error)}") from error


def find_pictures(sources: Iterable[str | Path]) -> list[Path]:
    """Expand files, folders (searched recursively, sorted) and globs into picture paths.

    A file named explicitly is passed on even if it is not there: opening it will say so, and the
    other pictures go on.

    Raises:
        InputError: a folder or glob holds no picture.
    """
    pictures: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = _pictures_below(path)
        elif has_magic(str(source)) and not path.exists():
            matches = (Path(match) for match in sorted(glob(str(source), recursive=True)))
            found = [match for match in matches if match.suffix.lower() in EXTENSIONS]
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
    ahead = ahead or 2 * threads
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
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    ]


def _rows_of_list(source: Path) -> list[tuple[Path, str]]:
    try:
        with source.open(newline="", encoding="utf-8") as file:
            lines = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source}: cannot be read as a list of path,label: {error}") from error
    if lines and [cell.strip().lower() for cell in lines[0][:2]] == ["path", "label"]:
        lines = lines[1:]
    if not lines or any(len(row) < 2 for row in lines):
        raise InputError(f"{source}: expected lines of the form path,label")
    return [(source.parent / row[0].strip(), row[1].strip()) for row in lines]


def _index_of_names(names: set[str], labels: Sequence[str], source: Path) -> dict[str, int]:
    counts = {name: list(labels).count(name) for name in names}
    if all(counts.values()):
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise InputError(
                f"{source}: the class {sorted(twice)[0]!r} has several indices in the labels: "
                "name its folders by class index"
            )
        return {name: list(labels).index(name) for name in names}
    if all(name.isdecimal() and int(name) < len(labels) for name in names):
        return {name: int(name) for name in names}
    unknown = sorted(name for name in names if not counts[name])
    raise InputError(
        f"{source}: class {unknown[0]!r} is not among the {len(labels)} labels of the bundle "
        f"({', '.join(list(labels)[:5])}{', …' if len(labels) > 5 else ''})"
    )


def _examples() -> str:
    return "*.jpg, *.png, *.webp and others"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
