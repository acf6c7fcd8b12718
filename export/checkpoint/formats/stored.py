"""Tensors that stand in a file: known by dtype and shape, read when they are wanted."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from resdeploy.deploy.arrays import Float32s

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# torch's name of a dtype -> numpy's; bfloat16 is the upper half of a float32.
_NUMPY = {
    "float32": "f4",
    "float64": "f8",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "u1",
}
FLOATING = ("float32", "float64", "float16", "bfloat16")
_BITS_BELOW_BFLOAT16 = 16
_DIMENSIONS_LIMIT = 32
_FEW = 1 << 14  # values that are read even where only shapes are asked for: means, ranges


class Storages(Protocol):
    """The bytes of a file's storages by key; raises ValueError for one that is not there."""

    def __call__(self, key: str) -> Bytes:
        """The bytes of one storage."""
        ...


@dataclass(frozen=True)
class Storage:
    """A run of values in the file; `key` finds its bytes."""

    key: str
    dtype: str


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, not read yet.

    Attributes:
        dtype: torch's name, e.g. "bfloat16"; "qint8" and others too, which cannot be read.
        strides: in values, not bytes; offset: of the first value in the storage.
        data: the storage it lies in, its bytes, or None where it is no plain tensor.
        kind: "" for a plain dense tensor, else what it is instead, e.g. "sparse".
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    data: Storage | bytes | None
    kind: str = ""
    order: str = "<"

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


def bytes_each(tensor: Stored) -> int:
    """Bytes of one value, once it is read as float32 at least."""
    return max(4, np.dtype(_NUMPY[tensor.dtype]).itemsize if tensor.dtype in _NUMPY else 4)


def sizes_of(values: Any) -> tuple[int, ...]:
    """The shape or strides of a tensor, from what a file says of them.

    Raises:
        ValueError, TypeError: they are none.
    """
    sizes = tuple(values)
    if len(sizes) > _DIMENSIONS_LIMIT or not all(type(size) is int for size in sizes):
        raise ValueError("a tensor of no shape")
    return sizes


def whole(dtype: str, shape: tuple[int, ...], data: Storage | bytes, order: str = "<") -> Stored:
    """A tensor that lies in `data` from its first byte, last dimension fastest."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return Stored(dtype, shape, strides, 0, data, order=order)


def read_float32(tensor: Stored, storages: Storages) -> Float32s:
    """The values of a floating-point tensor, without a copy where they are float32 already.

    Raises:
        ValueError: the values are not all in the file.
    """
    values = _values(tensor, storages)
    if tensor.dtype == "bfloat16":
        widened: Float32s = (values.astype(np.uint32) << _BITS_BELOW_BFLOAT16).view(np.float32)
        return widened
    floats: Float32s = values
    if tensor.dtype == "float32" and values.dtype.isnative:
        return floats
    floats = values.astype(np.float32)
    return floats


def placeholder(tensor: Stored, storages: Storages, size_of: Callable[[str], int]) -> Float32s:
    """Its shape without its values: ones that take no memory and no time, wherever there are many.

    For those who ask for no more than names and shapes. `size_of` tells the bytes of a storage.

    Raises:
        ValueError: the values are not all in the file.
    """
    if math.prod(tensor.shape) <= _FEW or not isinstance(tensor.data, Storage):
        return read_float32(tensor, storages)
    _check_size(tensor, size_of(tensor.data.key))
    return np.broadcast_to(np.float32(1), tensor.shape)


def _values(tensor: Stored, storages: Storages) -> Any:
    dtype = np.dtype(tensor.order + _NUMPY[tensor.dtype])
    if isinstance(tensor.data, bytes):
        buffer: Any = np.frombuffer(tensor.data, np.uint8).copy()
    elif tensor.data is not None:
        buffer = storages(tensor.data.key)
    else:
        raise ValueError(f"a {tensor.kind} tensor has no plain values")
    needed = _check_size(tensor, buffer.nbytes)
    strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
    start = tensor.offset * dtype.itemsize if needed else 0
    return np.ndarray(tensor.shape, dtype, buffer, start, strides)


def _check_size(tensor: Stored, there: int) -> int:
    """How many bytes of its storage a tensor needs; ValueError where fewer are there."""
    itemsize = np.dtype(_NUMPY[tensor.dtype]).itemsize
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min((tensor.offset, *tensor.strides, *tensor.shape), default=0) < 0:
        raise ValueError("a size is negative")
    needed = 0 if 0 in tensor.shape else (tensor.offset + last + 1) * itemsize
    if needed > there:
        raise ValueError(f"{needed} bytes wanted, {there} there")
    return needed
