"""Files and folders that exist while something is being made, and the sweep of what was left.

What replaces NAME is prepared beside it as `.NAME.new.PID.TOKEN`; a folder that steps aside for a
moment is called `.NAME.old.PID.TOKEN`. A process locks (flock) what it works on. The system
releases the lock when the process ends, however it ends: what can be locked has no owner, and the
next process that makes something there removes it.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from resdeploy.deploy.system.locks import is_held, release, take
from resdeploy.deploy.system.processes import is_running

_NAMES = re.compile(r"\.(?P<name>.+)\.(?P<kind>new|old)\.(?P<process>\d+)\.(?P<token>[0-9a-f]+)")

# in another container the same process id may run, so that it alone does not keep a temporary
_MAKING_S = 60.0


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; gone afterwards, unless it was renamed."""
    with _temporary(path, "folder") as folder:
        yield folder


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`; gone afterwards, unless it was renamed."""
    with _temporary(path, "file") as file:
        yield file


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what processes that are gone left in `folder`, for one name or for all."""
    for left in _left_in(folder, name):
        if not has_owner(left) and not _is_being_made(left):
            _remove(left)


def is_temporary(name: str) -> bool:
    """Whether a file or folder is called as those are that exist while something is made."""
    return _NAMES.fullmatch(name) is not None


def left_aside(path: Path) -> list[Path]:
    """The folders that stepped aside for a new `path`."""
    return [left for left in _left_in(path.parent, path.name) if _parts(left)["kind"] == "old"]


def aside(temporary: Path) -> Path:
    """Where the folder that `temporary` replaces may step for a moment."""
    parts = _parts(temporary)
    return temporary.with_name(f".{parts['name']}.old.{parts['process']}.{parts['token']}")


def has_owner(left: Path) -> bool:
    """Whether the process that made a temporary still works on it."""
    parts = _parts(left)
    working = left.with_name(f".{parts['name']}.new.{parts['process']}.{parts['token']}")
    held = is_held(working)
    # without locks the process's id must do
    return is_running(int(parts["process"])) if held is None else held


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold other processes that replace something in `folder` back for a moment."""
    lock = take(folder)
    try:
        yield
    finally:
        release(lock)


@contextmanager
def _temporary(path: Path, kind: Literal["file", "folder"]) -> Iterator[Path]:
    sweep(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.new.{os.getpid()}.{secrets.token_hex(4)}")
    lock = None
    try:
        if kind == "folder":
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        lock = take(temporary)
        yield temporary
    finally:
        try:
            _clear(path, temporary)
        except BaseException:  # a signal in the midst of it
            _clear(path, temporary)
            raise
        finally:
            release(lock)


def _clear(path: Path, temporary: Path) -> None:
    _remove(temporary)
    if path.exists():
        _remove(aside(temporary))


def _remove(left: Path) -> None:
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        with suppress(OSError):
            left.unlink()


def _left_in(folder: Path, name: str | None) -> list[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [
        path
        for path in found
        if (match := _NAMES.fullmatch(path.name)) and name in (None, match["name"])
    ]


def _parts(left: Path) -> dict[str, str]:
    match = _NAMES.fullmatch(left.name)
    assert match is not None
    return match.groupdict()


def _is_being_made(left: Path) -> bool:
    """Whether a process may be between making it and locking it, which takes microseconds."""
    try:
        young = time.time() - left.lstat().st_mtime < _MAKING_S
    except OSError:
        return False
    return young and is_running(int(_parts(left)["process"]))
