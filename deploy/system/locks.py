"""Locks on files and folders (flock), which the system releases when a process ends.

Windows opens no folder and renames no open file. There nothing is locked, and whoever asks is told
that it is not known.
"""

import os
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # asked for by `is not None`


def hold(handle: int, *, shared: bool = False) -> None:
    """Lock an open file until it is closed, once others let go of it."""
    if fcntl is not None:
        with suppress(OSError):  # a filesystem without locks
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def take(path: Path) -> int | None:
    """Open and lock a file or folder, once others let go of it; to be given to `release`.

    None where it cannot be locked, by others neither.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # not to be looked into
        return None
    hold(handle)
    return handle


def release(handle: int | None) -> None:
    """Close what `take` opened, and so give up its lock."""
    if handle is not None:
        os.close(handle)


def is_held(path: Path) -> bool | None:
    """Whether somebody holds a file or folder; None where there are no locks."""
    if fcntl is None:
        return None if path.exists() else False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a filesystem without locks
        return None
    finally:
        os.close(handle)
