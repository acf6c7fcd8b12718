"""Bytes of a file that is open, read when they are asked for.

A map of the file would end this process by SIGBUS when a training run, which saves again, cuts the
file short meanwhile. What is read here is short then, and somebody can be told.
"""

from pathlib import Path
from weakref import WeakValueDictionary, finalize

import numpy as np

from resdeploy.deploy.reading import open_regular
from resdeploy.export.checkpoint.formats.stored import Bytes

# Where torch allocates (c10::gAlignment) and where torch.save puts tensors. Other writers do not,
# and a kernel that gets an unaligned weight may sum in another order: other last bits.
ALIGNMENT_BYTES = 64


class Pieces:
    """A file's bytes by their place; `size` is that of the file when it was opened.

    A piece that somebody still uses is not read twice, and neither is the last one: many tensors
    may be views of one storage.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; it is closed with the last piece's reader.

        Raises:
            OSError: it cannot be opened, or is no regular file.
        """
        self._file = open_regular(path)
        finalize(self, self._file.close)
        self.size = self._file.seek(0, 2)
        self._used: WeakValueDictionary[tuple[int, int], Bytes] = WeakValueDictionary()
        self._last: Bytes | None = None

    def read(self, start: int, stop: int) -> Bytes:
        """(stop - start,) uint8, writable, its own memory, placed as torch places its tensors.

        Raises:
            ValueError: the file ends before.
        """
        whole = self._used.get((start, stop))
        if whole is None:
            if not 0 <= start <= stop <= self.size:
                raise ValueError(f"bytes {start} to {stop} of {self.size}")
            whole = np.empty(stop - start + ALIGNMENT_BYTES, np.uint8)
            piece = _aligned(whole)
            self._file.seek(start)
            got = self._file.readinto(piece.data)  # type: ignore[attr-defined]
            if got != len(piece):
                raise ValueError(f"the file was cut short at {start + got} of {self.size} bytes")
            self._used[start, stop] = whole
        self._last = whole  # which every view of the piece keeps, too
        return _aligned(whole)


def _aligned(whole: Bytes) -> Bytes:
    start = -whole.ctypes.data % ALIGNMENT_BYTES
    return whole[start : len(whole) - ALIGNMENT_BYTES + start]
