"""Tensors of the Open Inference Protocol: checked, and to and from their binary representation.

That is little-endian and row-major; each element of a BYTES tensor is a 4-byte little-endian length
and that many bytes. Among values, the elements of a BYTES input are base64 text, or {"b64": text}.
"""

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.serving.refusal import Refusal

_MAX_AXES = 8
_PREVIEW_CHARACTERS = 60


@dataclass(frozen=True)
class InputTensor:
    """A named tensor: FP32 with `values` of its shape, or BYTES with one bytes per element."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Float32s | tuple[bytes, ...]


@dataclass(frozen=True)
class OutputRequest:
    """An output that is asked for: as logits, or with `classes` as that many best classes."""

    name: str
    classes: int = 0
    binary: bool = False


@dataclass(frozen=True)
class InferRequest:
    """One inference; without `outputs` all are meant. `timeout_s` is infinite when not given."""

    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputRequest, ...] = ()
    id: str = ""
    priority: int = 0
    timeout_s: float = math.inf
    binary_output: bool = False


@dataclass(frozen=True)
class OutputTensor:
    """An output: FP32 with (N, classes) float32, or BYTES with N·k texts of shape (N, k)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Float32s | tuple[bytes, ...]
    binary: bool


@dataclass(frozen=True)
class InferResponse:
    """What a model answered."""

    model: str
    version: str
    id: str
    outputs: tuple[OutputTensor, ...]


def tensor_of_bytes(
    name: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview
) -> InputTensor:
    """An input in the binary representation.

    Raises:
        Refusal: the number of bytes is not that of the datatype and shape.
    """
    if datatype == "BYTES":
        return InputTensor(name, datatype, shape, _elements(name, math.prod(shape), raw))
    check_float(name, datatype)
    expected = 4 * math.prod(shape)
    if len(raw) != expected:
        raise malformed(f"input {name!r}: {len(raw)} bytes, expected {expected} for {list(shape)}")
    values = np.frombuffer(raw, "<f4").reshape(shape)
    # behind JSON of any length the numbers may lie at an odd address
    return InputTensor(name, datatype, shape, np.require(values, np.float32, "A"))


def tensor_of_values(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> InputTensor:
    """An input given as numbers (nested or flat), or as base64 texts for BYTES.

    Raises:
        Refusal: not numbers, or not as many as the shape says.
    """
    if not isinstance(data, list):
        raise malformed(f"input {name!r}: data is {kind(data)}, expected a list")
    if datatype == "BYTES":
        if len(data) != math.prod(shape):
            raise malformed(f"input {name!r}: {len(data)} elements, expected {math.prod(shape)}")
        return InputTensor(name, datatype, shape, tuple(_base64(name, text) for text in data))
    check_float(name, datatype)
    try:
        numbers = np.asarray(data)
    except ValueError as error:
        raise malformed(f"input {name!r}: data is nested unevenly") from error
    if numbers.dtype.kind not in "iuf" and numbers.size:
        raise malformed(f"input {name!r}: data holds something that is not a number")
    if numbers.size != math.prod(shape):
        raise malformed(f"input {name!r}: {numbers.size} numbers, expected {math.prod(shape)}")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused later
        return InputTensor(name, datatype, shape, numbers.astype(np.float32).reshape(shape))


def raw_bytes(tensor: OutputTensor) -> bytes:
    """An output in the binary representation."""
    if isinstance(tensor.values, tuple):
        return b"".join(struct.pack("<I", len(value)) + value for value in tensor.values)
    return np.ascontiguousarray(tensor.values, "<f4").tobytes()


def parse_shape(name: str, shape: Any) -> tuple[int, ...]:
    """The shape of an input: 1 to 8 whole numbers from 1.

    Raises:
        Refusal: anything else.
    """
    sizes = shape if isinstance(shape, Sequence) and not isinstance(shape, str | bytes) else ()
    good = all(type(size) is int and 1 <= size < 2**31 for size in sizes)
    if not good or not 1 <= len(sizes) <= _MAX_AXES:
        raise malformed(f"input {name!r}: shape {short(shape)}, expected whole numbers from 1")
    return tuple(sizes)


def parse_priority(value: Any) -> int:
    """Triton's priority: 1 is the most urgent, 0 the default."""
    if type(value) is not int or not 0 <= value < 2**32:
        raise malformed(f"priority {short(value)} is not a whole number from 0")
    return value


def parse_timeout(value: Any) -> float:
    """Triton's timeout in microseconds, 0 for none, to seconds."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise malformed(f"timeout {short(value)} is not a whole number of microseconds")
    return value / 1e6 if value else math.inf


def parse_classes(name: str, value: Any) -> int:
    """How many classes the classification extension asks for."""
    if type(value) is not int or not 1 <= value < 2**31:
        raise malformed(f"output {name!r}: classification {short(value)}, expected 1 or more")
    return value


def malformed(message: str) -> Refusal:
    """A refusal that the sender can fix."""
    return Refusal("malformed", message)


def short(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= _PREVIEW_CHARACTERS else text[:_PREVIEW_CHARACTERS] + "…"


def kind(value: Any) -> str:
    """What a JSON value is, as a message says it."""
    return "missing" if value is None else f"a JSON {type(value).__name__}"


def _elements(name: str, count: int, raw: bytes | memoryview) -> tuple[bytes, ...]:
    found: list[bytes] = []
    start = 0
    while start < len(raw):
        if len(raw) - start < 4:
            raise malformed(f"input {name!r}: {len(raw) - start} bytes are left, no whole length")
        (size,) = struct.unpack_from("<I", raw, start)
        start += 4
        if size > len(raw) - start:
            raise malformed(
                f"input {name!r}: element {len(found)} has {len(raw) - start} bytes, its length "
                f"says {size}"
            )
        found.append(bytes(raw[start : start + size]))
        start += size
    if len(found) != count:
        raise malformed(f"input {name!r}: {len(found)} elements, expected {count}")
    return tuple(found)


def _base64(name: str, element: Any) -> bytes:
    text = element.get("b64") if isinstance(element, dict) else element
    refusal = malformed(f"input {name!r}: an element is not base64 text")
    if not isinstance(text, str):
        raise refusal
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise refusal from error


def check_float(name: str, datatype: str) -> None:
    """Refuse a datatype that no classifier takes."""
    if datatype != "FP32":
        raise malformed(
            f"input {name!r}: datatype {short(datatype)}, expected FP32, or BYTES for images"
        )
