"""A file that stays the one whose hash was checked, whatever becomes of its name meanwhile.

Between a check and a library that opens the same path, the file could be exchanged. Linux lets the
library open what is open here already; elsewhere it opens the path. Whether the content was altered
in its place is found out at the end.
"""

import os
from pathlib import Path
from typing import IO

from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.files import sha256_of
from resdeploy.deploy.reading import open_regular
from resdeploy.deploy.session import ClosesOnExit

_OPEN_FILES = Path("/proc/self/fd")


class HeldFile(ClosesOnExit):
    """A file of a bundle, open, with the size and the hash that the manifest names.

    Attributes:
        path: how the user calls it.
        file: to read from.
    """

    path: Path
    file: IO[bytes]

    def __init__(self, path: Path, sha256: str, size_bytes: int | None = None) -> None:
        """Open and check it.

        Raises:
            BundleError: it is missing, cannot be read, or was altered.
        """
        self.path = path
        self._sha256 = sha256
        try:
            self.file = open_regular(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BundleError(
                f"{path}: missing, though the manifest lists it: export again"
            ) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            self._check_size(size_bytes)
            self._state = self._now()
            self._check_hash()
        except BaseException:
            self.close()
            raise

    @property
    def same(self) -> Path:
        """A path that leads to the open file, where the system has one, else `path`."""
        held = _OPEN_FILES / str(self.file.fileno())
        return held if held.exists() else self.path

    def check(self) -> None:
        """Raise BundleError where the content was altered since it was checked first."""
        if self._now() != self._state:  # a new hard link to it changes its times, too
            self._check_hash()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def _now(self) -> tuple[int, ...]:
        state = os.fstat(self.file.fileno())
        return (state.st_size, state.st_mtime_ns, state.st_ctime_ns)

    def _check_size(self, expected: int | None) -> None:
        size = os.fstat(self.file.fileno()).st_size
        if expected is not None and size != expected:
            raise BundleError(
                f"{self.path}: altered since it was written: {size} bytes, expected {expected}: "
                "export again or restore the file"
            )

    def _check_hash(self) -> None:
        try:
            found = sha256_of(self.file)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if found != self._sha256:
            raise BundleError(
                f"{self.path}: altered since it was written: sha256 {found[:12]}…, expected "
                f"{self._sha256[:12]}…: export again or restore the file"
            )


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path}: cannot be read: {error.strerror}")
