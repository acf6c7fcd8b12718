"""Opens the kinds of file that tensors are saved in, by their first bytes; torch is not needed.

    zip          data.pkl and one record for each storage (`torch.save` since 1.6)
    legacy       five pickles in a row, then each storage with its number of values before it
    pickle       one plain pickle that holds numpy arrays (detectron2's model zoo)
    safetensors  a JSON header, then the values

Storages are read when they are asked for: a tensor costs no memory until its values are used.
"""

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

from resdeploy.deploy.errors import CheckpointError
from resdeploy.deploy.reading import open_regular, parse_json
from resdeploy.export.checkpoint.formats.archive import (
    Archive,
    damaged_archive,
    open_archive,
    too_many,
)
from resdeploy.export.checkpoint.formats.pieces import Pieces
from resdeploy.export.checkpoint.formats.stored import Storage, Storages, Stored, sizes_of, whole
from resdeploy.export.checkpoint.formats.unpickle import (
    TENSORS_LIMIT,
    PlainUnpickler,
    RunsCodeError,
    TooManyTensorsError,
)
from resdeploy.export.checkpoint.formats.work import work_limit

Format = Literal["zip", "legacy", "pickle", "safetensors"]

# First bytes of files that get mistaken for checkpoints -> what they are and what to do.
_MISTAKEN = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run git lfs pull"),
    (b"<", "a web page or XML, not a checkpoint: download the file itself, not the page about it"),
    (
        b"\x89HDF",
        "a Keras file (HDF5), which is not read: convert the network with "
        "python -m tf2onnx.convert --saved-model FOLDER --output model.onnx",
    ),
    (b"\x1f\x8b", "gzip-compressed: run gunzip on it first"),
    (b"\x08", "an ONNX graph or other protobuf file, not a PyTorch checkpoint"),
)
_MAGIC_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # after pickle's own header
_BEFORE_THE_OBJECT = 3  # pickles of a legacy file: magic number, protocol, machine
_SHARING = 5000  # tensors in so few bytes that the work for them is too much
_HEADER_LIMIT_BYTES = 100_000_000  # the limit of the safetensors library itself
_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "qint32": 4, "complex64": 8,
          "complex128": 16, "float16": 2, "bfloat16": 2, "int16": 2}  # fmt: skip
_SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
                "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
                "BOOL": "bool"}  # fmt: skip
_UNCHECKED = (
    "saved without checksums (torch.serialization.set_crc32_options), so that damaged weights "
    "would not be noticed"
)


@dataclass(frozen=True)
class Contents:
    """`root` with `Stored` tensors in it, whose bytes `storages` finds, `size_of` their number.

    `replaced` are the full names of classes that were not loaded, `notes` what to tell the user.
    """

    format: Format
    root: Any
    replaced: tuple[str, ...]
    storages: Storages
    size_of: Callable[[str], int]
    notes: tuple[str, ...] = ()


def open_contents(path: Path, *, checked: bool = True) -> Contents:
    """Read `path` as plain data; nothing in it is executed.

    With `checked` off, large storages are not compared with their checksums.

    Raises:
        CheckpointError: no such file, no checkpoint, damaged or made to run code.
    """
    file_format = _format_of(path)
    readers: dict[Format, Callable[[Path], Contents]] = {
        "zip": partial(_open_zip, checked=checked),
        "legacy": _open_legacy,
        "pickle": _open_pickle,
        "safetensors": _open_safetensors,
    }
    return readers[file_format](path)


def _format_of(path: Path) -> Format:
    try:
        with open_regular(path) as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes): copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if _MAGIC_LEGACY in head:
        return "legacy"
    for start, kind in _MISTAKEN:
        if head.lstrip().startswith(start):
            raise CheckpointError(f"{path} is {kind}")
    if head.startswith(b"\x80"):
        return "pickle"
    kind = "a text file" if head.isascii() and b"\x00" not in head else "no PyTorch file"
    raise CheckpointError(
        f"{path} is {kind} (it begins with {head[:16]!r}): give a checkpoint written by torch.save "
        "or a .safetensors file"
    )


def _open_zip(path: Path, *, checked: bool) -> Contents:
    archive = open_archive(path)
    _check_records(path, archive)
    try:
        stream = BytesIO(archive.read("data.pkl", pickled=True).tobytes())
        big = "byteorder" in archive.records and archive.read("byteorder").tobytes() == b"big"
    except ValueError as error:
        raise damaged_archive(path, str(error)) from error
    if big:
        raise CheckpointError(
            f"{path} was written on a big-endian machine: save it again on this one"
        )
    root, unpickler = _unpickled(path, stream)
    return Contents(
        "zip",
        root,
        tuple(unpickler.replaced),
        lambda key: archive.read(f"data/{key}", checked=checked),
        lambda key: archive.size_of(f"data/{key}"),
        () if archive.has_checksums else (_UNCHECKED,),
    )


def _check_records(path: Path, archive: Archive) -> None:
    inner = archive.records
    if "constants.pkl" in inner:
        raise CheckpointError(
            f"{path} is a TorchScript archive (torch.jit.save), no checkpoint; save its tensors: "
            f"model = torch.jit.load({path.name!r}, map_location='cpu'); "
            f"torch.save(model.state_dict(), '{path.stem}_state_dict.pth')"
        )
    if "model.weights.h5" in archive.names:
        raise CheckpointError(
            f"{path} is a Keras file, which is not read: convert the network with "
            "python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
        )
    if "data.pkl" not in inner:
        kind = "a torch.export archive" if "archive_format" in inner else "a zip archive"
        raise CheckpointError(
            f"{path} is {kind} but no checkpoint (it has no data.pkl): give the file that "
            "torch.save(model.state_dict(), …) wrote"
        )


def _open_legacy(path: Path) -> Contents:
    with open_regular(path) as stream:
        for _ in range(_BEFORE_THE_OBJECT):
            _unpickled(path, stream)
        root, unpickler = _unpickled(path, stream)
        keys, _ = _unpickled(path, stream)
        places = _legacy_places(path, stream, keys, unpickler.storages)
    pieces = Pieces(path)

    def place(key: str) -> tuple[int, int]:
        if key not in places:
            raise ValueError(f"there is no storage {key}")
        return places[key]

    return Contents(
        "legacy",
        root,
        tuple(unpickler.replaced),
        lambda key: pieces.read(place(key)[0], sum(place(key))),
        lambda key: place(key)[1],
    )


def _legacy_places(
    path: Path, stream: IO[bytes], keys: Any, dtypes: dict[str, str]
) -> dict[str, tuple[int, int]]:
    """Where each storage begins and how many bytes it has."""
    places = {}
    size = path.stat().st_size
    for key in map(str, keys if isinstance(keys, list) else ()):
        count = int.from_bytes(stream.read(8), "little", signed=True)
        length = count * _BYTES.get(dtypes.get(key, ""), 1)
        start = stream.tell()
        if count < 0 or start + length > size:
            raise _damaged(path, f"storage {key} ends at {start + length}, the file at {size}")
        places[key] = (start, length)
        stream.seek(start + length)
    return places


def _open_pickle(path: Path) -> Contents:
    with open_regular(path) as stream:
        root, unpickler = _unpickled(path, stream)

    def none(key: str) -> NoReturn:
        raise ValueError(f"there is no storage {key}")

    return Contents("pickle", root, tuple(unpickler.replaced), none, none)


def _open_safetensors(path: Path) -> Contents:
    pieces = Pieces(path)
    try:
        length = int.from_bytes(pieces.read(0, 8).tobytes(), "little")
        if not 2 <= length <= min(_HEADER_LIMIT_BYTES, pieces.size - 8):
            raise ValueError(f"a header of {length} bytes, the file has {pieces.size}")
        header = parse_json(pieces.read(8, 8 + length).tobytes())
        header.pop("__metadata__", None)
        if len(header) > TENSORS_LIMIT:
            raise too_many(path, len(header))
        root = {name: _safe_tensor(name, entry, length) for name, entry in header.items()}
        _check_gapless(
            [entry["data_offsets"] for entry in header.values()], pieces.size - 8 - length
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}): copy or download it again"
        ) from error

    def place(key: str) -> tuple[int, int]:
        start, end = key.split(":")
        return int(start), int(end)

    return Contents(
        "safetensors",
        root,
        (),
        lambda key: pieces.read(*place(key)),
        lambda key: place(key)[1] - place(key)[0],
    )


def _check_gapless(parts: list[Any], size: int) -> None:
    """Every byte of the values belongs to one tensor, as the format has it."""
    at = 0
    for start, end in sorted(map(sizes_of, parts)):
        if start != at:
            raise ValueError(f"values begin at {start}, expected {at}")
        at = end
    if at != size:
        raise ValueError(f"the values end at {at}, the file has {size} bytes of them")


def _safe_tensor(name: str, entry: Any, header_bytes: int) -> Stored:
    start, end = (8 + header_bytes + int(offset) for offset in entry["data_offsets"])
    dtype = _SAFETENSORS.get(entry["dtype"], str(entry["dtype"]).lower())
    shape = sizes_of(entry["shape"])
    wanted = math.prod(shape) * _BYTES.get(dtype, 1)
    if end - start != wanted or min((start, *shape)) < 0:
        raise ValueError(f"{name} has {end - start} bytes, expected {wanted}")
    return whole(dtype, shape, Storage(f"{start}:{end}", dtype))


def _unpickled(path: Path, stream: IO[bytes]) -> tuple[Any, PlainUnpickler]:
    unpickler = PlainUnpickler(stream, work_limit(path.stat().st_size))
    try:
        return unpickler.load(), unpickler
    except RunsCodeError as error:
        raise CheckpointError(
            f"{path} is a pickle that names {error.name}, which runs code and has no place in a "
            "checkpoint: nothing was run; get the file from a source you trust"
        ) from error
    except TooManyTensorsError as error:
        raise too_many(path, TENSORS_LIMIT + 1) from error
    except pickle.UnpicklingError as error:
        if unpickler.tensors > _SHARING:
            raise too_many(path, unpickler.tensors, "sharing their values") from error
        raise _damaged(path, str(error)) from error
    except Exception as error:  # a damaged pickle can make an unpickler raise nearly anything
        raise _damaged(path, type(error).__name__) from error


def _damaged(path: Path, told: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a checkpoint ({told}): it is damaged, "
        "cut short or not from torch.save; copy it again or save it anew with "
        "torch.save(model.state_dict(), …)"
    )
