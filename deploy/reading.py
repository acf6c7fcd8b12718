"""Opens regular files alone, and reads text and JSON that somebody else may have written.

A named pipe would block for ever, and a device may give bytes without an end.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any

from resdeploy.deploy.system.handles import READ_FLAGS

# answers of a network for a million images take less
_TEXT_LIMIT_BYTES = 256 << 20
# resdeploy's own files nest no deeper than 8, and hold no integer longer than a hash in decimal
_DEPTH_LIMIT = 64
_DIGITS_LIMIT = 100

# what a caller may name a file or folder by
StrPath = str | os.PathLike[str]

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading; whatever the path names, this returns at once.

    Raises:
        OSError: it cannot be opened, or is something else than a regular file.
    """
    _check_regular(os.stat(path).st_mode, path)  # opening some devices does something already
    handle = os.open(path, READ_FLAGS)
    try:
        _check_regular(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def keep_as_paths(options: object, *names: str) -> None:
    """Fields of a frozen dataclass that may be given as text become paths: for `__post_init__`."""
    for name in names:
        value = getattr(options, name)
        if value is not None:
            object.__setattr__(options, name, Path(value))


def read_text(path: Path, *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The text of a regular file.

    Raises:
        OSError: as `open_regular`.
        ValueError: too long, or not in this encoding.
    """
    with open_regular(path) as file:
        data = file.read(_TEXT_LIMIT_BYTES + 1)
    if len(data) > _TEXT_LIMIT_BYTES:
        raise ValueError(f"more than {_TEXT_LIMIT_BYTES >> 20} MiB of text")
    return data.decode(encoding, errors)


def read_json(path: Path) -> Any:
    """The JSON in a regular file.

    Raises:
        OSError: as `open_regular`.
        ValueError: too long, not UTF-8, not JSON, nested too deeply, or an integer too long.
    """
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Any:
    """The values in a JSON text.

    Raises:
        ValueError: not JSON, nested too deeply, or an integer too long.
    """
    try:
        content = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested more than {_DEPTH_LIMIT} deep") from None
    level, depth = _inner([content]), 0
    while level := [item for value in level for item in _inner(value)]:
        depth += 1
        if depth > _DEPTH_LIMIT:
            raise ValueError(f"nested more than {_DEPTH_LIMIT} deep")
    return content


def _inner(value: Any) -> list[Any]:
    """The lists and objects in a list or an object."""
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict | list)]


def _integer(digits: str) -> int:
    # Python refuses more than 4300 digits with advice to programmers
    if len(digits) > _DIGITS_LIMIT:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _check_regular(mode: int, path: str | Path) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "no file")
    raise OSError(errno.EINVAL, f"{kind}, expected a regular file", str(path))
