"""Reads the records of a zip archive that torch.save wrote, each compared with its CRC-32.

Records are read when they are asked for, and compared with their checksum, unless only names and
shapes are asked for: then large ones are left unread. PyTorch does not compress them, other
programs may.
"""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from resdeploy.deploy.errors import CheckpointError, first_line
from resdeploy.deploy.reading import open_regular
from resdeploy.export.checkpoint.formats.pieces import Pieces
from resdeploy.export.checkpoint.formats.stored import Bytes
from resdeploy.export.checkpoint.formats.unpickle import TENSORS_LIMIT

_LOCAL_HEADER_BYTES = 30  # PKWARE APPNOTE 4.3.7: fixed part, then name and extra field
_END_RECORD_BYTES = 22
_ENCRYPTED = 1
# Weights hardly shrink. Of a small file that grows hugely nothing good is to be expected.
_GROWTH, _PICKLE_GROWTH = 100, 2
_ALWAYS_BYTES = 1 << 20
_SMALL_BYTES = 1 << 16


@dataclass(frozen=True)
class Archive:
    """The records of a file by their name in the archive's only folder, and all `names`.

    `has_checksums` is False where all are zero: PyTorch can be told to leave them out.
    """

    path: Path
    records: dict[str, zipfile.ZipInfo]
    names: frozenset[str]
    has_checksums: bool
    _pieces: Pieces
    _read: set[str] = field(default_factory=set)

    def read(self, name: str, *, pickled: bool = False, checked: bool = True) -> Bytes:
        """The bytes of a record; `pickled` allows it to grow less, since every byte costs time.

        With `checked` off, a large record is not compared with its checksum.

        Raises:
            ValueError: it is not there, damaged, or grows more than weights do.
        """
        info = self.records.get(name)
        if info is None:
            raise ValueError(f"there is no record {name}")
        data = self._stored(info)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            data = _inflated(info, data, _PICKLE_GROWTH if pickled else _GROWTH)
        elif info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"record {name} has compression method {info.compress_type}")
        if data.nbytes != info.file_size:
            raise ValueError(f"record {name} has {data.nbytes} bytes, expected {info.file_size}")
        wanted = checked or data.nbytes <= _SMALL_BYTES
        if self.has_checksums and wanted and name not in self._read:
            if zlib.crc32(data.data) != info.CRC:
                raise ValueError(f"record {name} does not have its checksum")
            self._read.add(name)
        return data

    def size_of(self, name: str) -> int:
        """How many bytes a record has.

        Raises:
            ValueError: it is not there.
        """
        if name not in self.records:
            raise ValueError(f"there is no record {name}")
        return self.records[name].file_size

    def _stored(self, info: zipfile.ZipInfo) -> Bytes:
        start = info.header_offset
        header = self._pieces.read(start, start + _LOCAL_HEADER_BYTES).tobytes()
        if header[:4] != b"PK\x03\x04" or info.flag_bits & _ENCRYPTED:
            raise ValueError(f"record {info.filename} has no plain header")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start += _LOCAL_HEADER_BYTES + lengths
        return self._pieces.read(start, start + info.compress_size)


def open_archive(path: Path) -> Archive:
    """List the records of a zip archive.

    Raises:
        CheckpointError: damaged, or with more records than any network has tensors.
    """
    _check_record_count(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        pieces = Pieces(path)
    except Exception as error:  # damaged names and fields raise many kinds
        raise damaged_archive(path, first_line(error)) from error
    stored = sum(info.compress_size for info in infos)
    if stored > pieces.size:  # each would be read, though all may be the same bytes
        raise damaged_archive(path, f"its records overlap: {stored} bytes of {pieces.size}")
    return Archive(
        path,
        {info.filename.partition("/")[2]: info for info in infos},
        frozenset(info.filename for info in infos),
        any(info.CRC for info in infos),
        pieces,
    )


def damaged_archive(path: Path, told: str) -> CheckpointError:
    """What to say of an archive of which something cannot be read."""
    return CheckpointError(
        f"{path} is a zip archive that is damaged or cut short ({path.stat().st_size} bytes; "
        f"{told}): copy or download it again"
    )


def _inflated(info: zipfile.ZipInfo, data: Bytes, growth: int) -> Bytes:
    limit = max(_ALWAYS_BYTES, growth * data.nbytes)
    if info.file_size > limit:
        raise ValueError(
            f"record {info.filename} grows from {data.nbytes} to {info.file_size} bytes"
        )
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data.data, info.file_size + 1)
    except zlib.error as error:
        raise ValueError(f"record {info.filename}: {error}") from error
    return np.frombuffer(bytearray(inflated), np.uint8)  # writable, as a piece is


def _check_record_count(path: Path) -> None:
    """Refuse an archive of a million records before Python lists them all."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_RECORD_BYTES))
        end = file.read()
    count = int.from_bytes(end[10:12], "little") if end.startswith(b"PK\x05\x06") else 0
    if count == 0xFFFF:  # the true count is in the ZIP64 record: 56 bytes, then a locator of 20
        with open_regular(path) as file:
            file.seek(max(0, size - _END_RECORD_BYTES - 20 - 56))
            end = file.read(56)
        count = int.from_bytes(end[32:40], "little") if end.startswith(b"PK\x06\x06") else count
    if count > TENSORS_LIMIT:
        raise too_many(path, count)


def too_many(path: Path, count: int, how: str = f"limit: {TENSORS_LIMIT}") -> CheckpointError:
    """What to say of a file with more records or tensors than any network has."""
    return CheckpointError(
        f"{path} holds {count} tensors or more, {how}: it is no checkpoint of an image classifier"
    )
