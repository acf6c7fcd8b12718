"""Replaces a whole folder in one step, and clears away what killed processes left beside it.

The new state is prepared in a sibling `.NAME.new.PID.TOKEN`. Linux exchanges it with the folder in
one step (renameat2 with RENAME_EXCHANGE), so that every reader sees one whole state. Where the
system or the filesystem cannot, the old folder steps aside as `.NAME.old.PID.TOKEN` for a moment;
a kill in that moment is mended by whoever comes next, reader or writer (see `temporaries`).
"""

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resdeploy.deploy.system.handles import flush
from resdeploy.deploy.system.processes import c_library
from resdeploy.deploy.temporaries import aside, has_owner, left_aside, temporary_folder

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)

# two renames take microseconds; this is for a machine that is very busy
_PATIENCE_S = 2.0


@contextmanager
def sibling(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to prepare its new state in; gone afterwards.

    What dead processes left beside `path` is cleared away first.
    """
    restore(path)
    with temporary_folder(path) as folder:
        yield folder


def put_in_place(folder: Path, path: Path) -> Path | None:
    """Make `folder` what `path` names; returns where the former folder is now, if there was one.

    Everything in `folder` reaches the disk first, so that a power cut leaves one whole state too.
    """
    _flush(folder)
    former = None
    if not path.exists():
        os.rename(folder, path)
    elif exchange(folder, path):
        former = folder
    else:
        former = _step_aside(folder, path)
    flush(path.parent)
    return former


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step; False, and nothing done, where that is unknown."""
    try:
        function = c_library().renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def restore(path: Path) -> None:
    """Bring back a folder whose replacement was killed half-way; wait for one that is under way."""
    deadline = time.monotonic() + _PATIENCE_S
    while not path.exists() and (former := left_aside(path)):
        if not has_owner(former[0]):
            with suppress(OSError):  # another process was quicker, or the folder is read-only
                os.rename(former[0], path)
            return
        if time.monotonic() > deadline:
            return
        time.sleep(0.001)


def _step_aside(folder: Path, path: Path) -> Path:
    former = aside(folder)
    try:
        os.rename(path, former)
        os.rename(folder, path)
    finally:
        if former.exists() and not path.exists():  # whatever went wrong, Ctrl-C included
            os.rename(former, path)
    return former


def _flush(folder: Path) -> None:
    """Write every new file of a folder, and the folder itself, to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            if file.is_file() and file.stat().st_nlink == 1:  # what is linked is not new
                flush(file)
        flush(Path(root))
