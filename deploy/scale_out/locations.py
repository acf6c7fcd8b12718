"""Where images are: local paths, or URIs of any file system that fsspec knows (s3://, gs://, …).

Lists them, with their classes where folders or a list name them, and fetches them as files.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from resdeploy.deploy.errors import InputError, first_line
from resdeploy.deploy.images.dataset import Images, read_data
from resdeploy.deploy.images.files import EXTENSIONS, class_indices, find_images
from resdeploy.deploy.images.lists import read_list_rows
from resdeploy.deploy.optional import needs

_SCHEME = "://"
_LISTS = (".csv", ".txt")
_PATH_COLUMNS = ("path", "file", "filename", "image", "uri")
_CLASS_COLUMNS = ("class", "label")
# a file system of this process's own memory: no worker can read it
_MEMORY = "memory://"


@dataclass(frozen=True)
class Location:
    """One image: a local path or a URI, and its class, "" where unknown."""

    place: str
    class_name: str = ""

    @property
    def path(self) -> Path:
        """For reports: the place as a path, which for a URI is none that can be opened."""
        return Path(self.place)


def find_locations(sources: Sequence[str]) -> list[Location]:
    """The images that files, folders, globs, URIs and lists stand for, those of a folder sorted.

    A list is a .csv, .txt or .parquet file, local or by URI: `path` or `path,class`, a Parquet
    file with such columns. A relative path in it is relative to the list.

    Raises:
        InputError: nothing there, or a list that cannot be read.
    """
    found: list[Location] = []
    for source in sources:
        suffix = PurePosixPath(source).suffix.lower()
        if suffix == ".parquet":
            found += _parquet_list(source)
        elif suffix in _LISTS:
            found += _text_list(source)
        elif _SCHEME in source:
            found += _below(source)
        else:
            found += _local(source)
    return found


@contextmanager
def as_files(
    places: Sequence[str], contents: Sequence[bytes | None] | None = None
) -> Iterator[list[Path]]:
    """The images as local files, in order; those that are not local are fetched and deleted again.

    One that does not exist is a path at which nothing is: opening it says so.

    Args:
        contents: of the images, for whoever cannot fetch them.

    Raises:
        InputError: an image is there and cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="resdeploy-images-") as folder:
        files = []
        for number, place in enumerate(places):
            if contents is None and _SCHEME not in place:
                files.append(Path(place))
                continue
            file = Path(folder, f"{number}{PurePosixPath(place).suffix}")
            content = content_of(place) if contents is None else contents[number]
            if content is not None:
                file.write_bytes(content)
            files.append(file)
        yield files


def read_bytes(place: str) -> bytes:
    """The content of a file.

    Raises:
        InputError: it cannot be read.
    """
    content = content_of(place)
    if content is None:
        raise InputError(f"{place}: no such file")
    return content


def content_of(place: str) -> bytes | None:
    """The content of a file, None where nothing is.

    Raises:
        InputError: something is there and cannot be read.
    """
    try:
        if _SCHEME not in place:
            return Path(place).read_bytes()
        system, path = _system(place)
        content: bytes = system.cat_file(path)
        return content
    except InputError:
        raise
    except FileNotFoundError:
        return None
    except Exception as error:  # every file system has exceptions of its own
        raise InputError(f"{place}: cannot be read: {first_line(error)}") from error


def is_local(source: str) -> bool:
    """Whether every engine can read a source: a local file or folder that names only such."""
    return _SCHEME not in source and PurePosixPath(source).suffix.lower() != ".parquet"


def read_located_data(source: str, labels: Sequence[str]) -> tuple[Images, list[str]]:
    """What `read_data` gives, of a source anywhere, and the place of every image.

    Raises:
        InputError: as `read_data` and `find_locations`.
    """
    suffix = PurePosixPath(source).suffix.lower()
    if is_local(source) and suffix not in _LISTS:
        images = read_data(Path(source), labels)
        return images, [str(path) for path in images.paths]
    found = find_locations([source])
    named = [location for location in found if location.class_name]
    if not named or not labels:
        return Images(tuple(location.path for location in found), None), _places(found)
    if len(named) < len(found) and suffix in (*_LISTS, ".parquet"):
        nameless = next(location for location in found if not location.class_name)
        raise InputError(f"{source}: no class for {nameless.place}, expected one for every image")
    index_of = class_indices({location.class_name for location in named}, labels, source)
    truth = np.array([index_of[location.class_name] for location in named], np.int64)
    return Images(tuple(location.path for location in named), truth), _places(named)


def _places(locations: Sequence[Location]) -> list[str]:
    return [location.place for location in locations]


def only_here(place: str) -> bool:
    """Whether only this process can read it."""
    return place.startswith(_MEMORY)


def _local(source: str) -> list[Location]:
    folder = Path(source)
    if not folder.is_dir():
        return [Location(str(path)) for path in find_images([source])]
    paths = find_images([folder])
    return [Location(str(path), _class_of(path.relative_to(folder).parts)) for path in paths]


def _below(source: str) -> list[Location]:
    """One file, or all images below a folder, in the order of a local folder."""
    system, path = _system(source)
    try:
        if system.isfile(path):
            return [Location(source)]
        names = [PurePosixPath(name) for name in system.find(path)]
    except Exception as error:
        raise InputError(f"{source}: cannot be listed: {first_line(error)}") from error
    images = sorted(
        relative
        for relative in (name.relative_to(path) for name in names)
        if relative.suffix.lower() in EXTENSIONS
        and not any(part.startswith(".") for part in relative.parts)
    )
    if not images:
        raise InputError(f"{source}: no images there")
    base = source.rstrip("/")
    return [Location(f"{base}/{relative}", _class_of(relative.parts)) for relative in images]


def _text_list(source: str) -> list[Location]:
    if _SCHEME not in source:
        rows = read_list_rows(Path(source))
        return [_listed(source, place, name) for place, name in rows]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "list.csv")
        file.write_bytes(read_bytes(source))
        try:
            rows = read_list_rows(file)
        except InputError as error:
            raise InputError(str(error).replace(str(file), source)) from error
        return [_listed(source, place, name) for place, name in rows]


def _parquet_list(source: str) -> list[Location]:
    with needs("a Parquet list"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(source)))
    except pa.ArrowException as error:
        raise InputError(f"{source}: not a Parquet file: {first_line(error)}") from error
    names = {name.lower(): name for name in table.column_names}
    path = next((names[name] for name in _PATH_COLUMNS if name in names), None)
    if path is None:
        raise InputError(
            f"{source}: columns {', '.join(table.column_names)}, expected one named "
            f"{', '.join(_PATH_COLUMNS)}"
        )
    label = next((names[name] for name in _CLASS_COLUMNS if name in names), None)
    places = table.column(path).to_pylist()
    classes = table.column(label).to_pylist() if label else [""] * len(places)
    if not places or not all(places):
        raise InputError(f"{source}: a row without a path, or no rows")
    return [
        _listed(source, str(place), str(name)) for place, name in zip(places, classes, strict=True)
    ]


def _listed(source: str, place: str, class_name: str) -> Location:
    """An entry of a list, whose place is relative to the list unless it says otherwise."""
    if _SCHEME in place or place.startswith("/"):
        return Location(place, class_name)
    parent = source.rpartition("/")[0]
    return Location(f"{parent}/{place}" if parent else place, class_name)


def _class_of(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) > 1 else ""


def _system(source: str) -> tuple[Any, str]:
    """The file system of a URI and its path there."""
    with needs(f"{source.partition(_SCHEME)[0]}{_SCHEME}"):
        import fsspec
    try:
        system, path = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as error:  # no such protocol, or its library is missing
        raise InputError(f"{source}: {first_line(error)}") from error
    return system, path
