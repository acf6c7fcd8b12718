"""Finds images on disk, opens them, and reads which class each belongs to."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import IO, BinaryIO

from PIL import Image, UnidentifiedImageError

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError, first_line
from resdeploy.deploy.images.heif import can_read_heif, is_heif
from resdeploy.deploy.images.lists import read_image_list
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.installation import install_command
from resdeploy.deploy.reading import open_regular

# What is looked for inside a folder; a file named explicitly may be anything Pillow reads.
# fmt: off
EXTENSIONS = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".ico", ".avif",
])
# fmt: on


@dataclass(frozen=True)
class LabelledImage:
    """An image and the index of its true class."""

    path: Path
    index: int


def open_image(path: str | Path) -> Image.Image:
    """Decode an image file to RGB, as torchvision's `ImageFolder` does.

    Raises:
        InputError: the file is missing, empty, no image, cut short, or over Pillow's
            decompression-bomb limit.
    """
    if is_heif(path) and not can_read_heif():
        raise InputError(
            f"{path}: a HEIC image, which needs pillow-heif: {install_command('heic')}"
        )
    return decoded(path, str(path))


def decoded(file: str | Path | BinaryIO, path: str) -> Image.Image:
    """Decode a file, or the bytes of one, to RGB; `path` is what messages call it.

    Raises:
        InputError: as `open_image`.
    """
    try:
        with _opened(file) as stream, Image.open(stream) as image:
            image.load()
            # convert() would copy, which for a photograph of 12 megapixels is another 48 MB
            return image if image.mode == "RGB" else image.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        empty = _size_bytes(file) == 0
        reason = "the file is empty" if empty else "not an image in any format Pillow reads"
        raise InputError(f"{path}: {reason}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels for an image ({error})") from error
    except OSError as error:
        # an error of the system (a folder, no permission) has a number, one of a decoder has not
        reason = f"cannot be decoded: {first_line(error)}"
        if error.strerror is not None:
            reason = f"cannot be read: {error.strerror}"
        raise InputError(f"{path}: {reason}") from error
    except Exception as error:
        # damaged files make Pillow's decoders raise ValueError, SyntaxError, EOFError,
        # RuntimeError (AVIF), MemoryError, struct.error and others
        raise InputError(f"{path}: cannot be decoded: {first_line(error)}") from error


def _opened(file: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO | IO[bytes]]:
    return open_regular(file) if isinstance(file, str | Path) else nullcontext(file)


def _size_bytes(file: str | Path | BinaryIO) -> int:
    return os.path.getsize(file) if isinstance(file, str | Path) else file.seek(0, os.SEEK_END)


def read_input(path: str | Path, preprocess: Preprocess, out: Float32s | None = None) -> Float32s:
    """Open an image and preprocess it: (3, H, W) float32, written into `out` when given.

    Raises:
        InputError: as `open_image` and `Preprocess.apply`; the message begins with the path.
    """
    image = open_image(path)
    try:
        return preprocess.apply(image, out)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Expand files, folders (searched recursively, sorted) and globs into image paths.

    A file named explicitly is passed on even if it is not there: opening it will say so, and the
    other images go on. A folder that a glob matches is searched too, as it is where the shell
    has expanded the glob. Hidden files and folders are left out, links to folders are followed.

    Raises:
        InputError: a folder or glob holds no image.
    """
    return [Path(name) for name in find_image_names(sources)]


def find_image_names(sources: Iterable[str | Path]) -> list[str]:
    """The paths of `find_images` as texts, which of 100,000 images take a tenth of the memory.

    Raises:
        InputError: as `find_images`.
    """
    images: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = _images_below(path)
        elif has_magic(str(source)) and not path.exists():
            found = _images_of_glob(str(source))
        else:
            found = [str(path)]
        if not found:
            raise InputError(f"{source}: no images there (looked for {_examples()})")
        images += found
    return images


def labelled_images(source: str | Path, labels: Sequence[str]) -> list[LabelledImage]:
    """Read labelled images: a folder of class folders, or a list or CSV file `path,label`.

    A class folder (or label in a list) is named by a label of the bundle or by its class index.
    Paths in a list are relative to the list's own folder.

    Raises:
        InputError: nothing there, or a class name that is not among `labels`.
    """
    source = Path(source)
    if source.is_dir():
        rows = [
            (path, path.relative_to(source).parts[0])
            for path in map(Path, _images_below(source))
            if len(path.relative_to(source).parts) > 1
        ]
        if not rows:
            raise InputError(
                f"{source}: no class folders with images in them; expected "
                f"{source.name}/CLASS/IMAGE with {_examples()}"
            )
    elif source.is_file():
        rows = _rows_of_list(source)
    else:
        raise InputError(f"{source}: no such file or folder")
    index_of = class_indices({name for _, name in rows}, labels, source)
    return [LabelledImage(path, index_of[name]) for path, name in rows]


def _images_below(folder: Path) -> list[str]:
    """In the order of their paths, part by part; there is no path object of each."""
    found: list[str] = []
    seen: set[str] = set()  # a link may point to a folder above it
    open_folders = [_listed(str(folder), seen)]
    while open_folders:
        inside, names, folders = open_folders[-1]
        if not names:
            open_folders.pop()
            continue
        name = names.pop()
        path = os.path.join(inside, name)
        if name in folders:
            open_folders.append(_listed(path, seen))
        else:
            # a link that leads nowhere stays in: opening it will say so
            found.append(path)
    return found


def _listed(folder: str, seen: set[str]) -> tuple[str, list[str], set[str]]:
    """What stands before a name in a folder, the names there from the last on, and which of them
    are folders; none in a folder that was `seen` or into which nobody may look."""
    inside = "" if folder == os.curdir else folder
    real = os.path.realpath(folder)
    if real in seen:
        return inside, [], set()
    seen.add(real)
    names, folders = [], set()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if not entry.name.startswith("."):
                    folders.add(entry.name)
                    names.append(entry.name)
            elif _is_named_like_an_image(entry.name):
                names.append(entry.name)
    names.sort(reverse=True)
    return inside, names, folders


def _images_of_glob(pattern: str) -> list[str]:
    found: list[str] = []
    for match in map(Path, sorted(glob(pattern, recursive=True))):
        if match.is_dir():
            found += _images_below(match)
        elif _is_named_like_an_image(match.name):
            found.append(str(match))
    return list(dict.fromkeys(found))  # `**` matches a folder and what is in it


def _is_named_like_an_image(name: str) -> bool:
    known = os.path.splitext(name)[1].lower() in EXTENSIONS or (is_heif(name) and can_read_heif())
    return known and not name.startswith(".")


def _rows_of_list(source: Path) -> list[tuple[Path, str]]:
    rows = read_image_list(source)
    if unlabelled := [path for path, name in rows if not name]:
        raise InputError(
            f"{source}: no class for {unlabelled[0].name!r}, expected lines of the form path,label"
        )
    return rows


def class_indices(names: set[str], labels: Sequence[str], source: Path | str) -> dict[str, int]:
    """The index of every class that folders or a list name, by label or by number.

    Raises:
        InputError: a name that is not among `labels`, or there more than once.
    """
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
        f"({', '.join(list(labels)[:5])}{', …' if len(labels) > 5 else ''}): rename the folder, or "
        "name the classes with resdeploy export --classes FILE"
    )


def _examples() -> str:
    return "*.jpg, *.png, *.webp and others"
