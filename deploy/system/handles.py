"""Open files as the system has them: opened, written through, kept without a name."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# What a named pipe or a device would make wait returns at once; no child inherits it; Windows
# translates no line ends.
READ_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    READ_FLAGS |= getattr(os, _name, 0)


def flush(path: Path) -> None:
    """Write a file, or a folder's entries, through to the disk, where the system can."""
    if sys.platform == "win32":  # it opens no folder, and flushes no file that is open for reading
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a filesystem that cannot
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def file_in_memory() -> Iterator[tuple[Path, IO[bytes]]]:
    """Yield the path of an empty file that nobody else sees, and a stream that reads it.

    Linux keeps it in memory, where nothing of it is left however the process ends; other systems
    keep it in their folder of temporary files until the block ends.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("report"), "rb") as content:
            yield Path(f"/proc/self/fd/{content.fileno()}"), content
        return
    with tempfile.TemporaryDirectory(prefix="resdeploy-") as folder:
        path = Path(folder, "report")
        path.touch()
        with path.open("rb") as content:
            yield path, content
