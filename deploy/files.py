"""Writes files whole or not at all, refuses early what cannot be written, and hashes them.

JSON that resdeploy keeps carries the SHA-256 of its own content, whatever its layout. That detects
accidents, not tampering: who alters a file on purpose can compute its hash anew.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.reading import open_regular, read_json
from resdeploy.deploy.system.handles import file_in_memory
from resdeploy.deploy.temporaries import temporary_file


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file; on success its content takes the place of `path`'s.

    A regular file is replaced in one step, and so is the file that a link leads to. Anything else
    (a pipe, a device, or what this process's own stdout goes to) keeps its place and is written to.

    Raises:
        InputError: a folder, or it cannot be written or is full.
    """
    try:
        with _prepared(path) as file:
            yield file
    except BrokenPipeError:
        raise  # the reader left, and the command says so in its own way
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _prepared(path: Path) -> Iterator[Path]:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    stream = _standard_stream(path)
    if stream is not None or (path.exists() and not path.is_file()):
        with file_in_memory() as (file, content):
            yield file
            with open(path if stream is None else os.dup(stream), "wb") as target:
                shutil.copyfileobj(content, target)
        return
    place = Path(os.path.realpath(path))
    with temporary_file(place) as temporary:
        yield temporary
        os.replace(temporary, place)


def _standard_stream(path: Path) -> int | None:
    """1 or 2 where the path is what stdout or stderr goes to, such as /dev/stdout."""
    for stream in (1, 2):
        with suppress(OSError):  # no such file, or the stream is closed
            if os.path.samestat(path.stat(), os.fstat(stream)):
                return stream
    return None


_CHUNK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with open_regular(path) as file:
        return sha256_of(file)


def sha256_of(file: IO[bytes]) -> str:
    """Hexadecimal SHA-256 of an open file from its beginning, read in pieces."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values, with the SHA-256 of their content under "sha256"."""
    content: dict[str, Any] = json.loads(json.dumps(dict(fields)))
    content.pop("sha256", None)
    return {**content, "sha256": _digest(content)}


def read_sealed(path: Path) -> dict[str, Any]:
    """What `sealed` made and a file kept, without the hash.

    Raises:
        OSError: it cannot be opened.
        ValueError: not JSON, without its hash, or altered since it was written.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"a JSON {type(content).__name__}, expected an object")
    if content.pop("sha256", None) != _digest(content):
        raise ValueError("altered since it was written")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_writable(*paths: Path | None) -> None:
    """Raise InputError for a file that could not be written, before minutes of work.

    None stands for a report that was not asked for.
    """
    asked = [path for path in paths if path is not None]
    for path in asked:
        if not path.parent.is_dir():
            raise InputError(f"{path}: cannot be written: no folder {path.parent}: make it first")
        if path.is_dir():
            raise InputError(f"{path}: cannot be written: it is a folder")
        if path.exists() and not path.is_file():  # a pipe or a device
            why = None if os.access(path, os.W_OK) else "no permission"
        else:  # it is replaced: tried, for root may write everywhere but in file systems like /sys
            why = _why_not_beside(Path(os.path.realpath(path)))
        if why is not None:
            raise InputError(f"{path}: cannot be written: {why}")
    for path in asked:
        if asked.count(path) > 1:
            raise InputError(f"{path}: named for two reports: give each its own file")


def _why_not_beside(path: Path) -> str | None:
    """Why no file can be made where one takes the place of `path`; None where it can."""
    try:
        with temporary_file(path):
            return None
    except OSError as error:
        return error.strerror or str(error)


def write_text(path: Path, text: str) -> None:
    """Write a text file, replacing what was there in one step.

    Raises:
        InputError: the folder cannot be written or is full.
    """
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
