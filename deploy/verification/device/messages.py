"""The messages between a verification and a device: a line of JSON, then bytes.

    {"kind": "run", …, "bytes": [4816896]}
    4816896 bytes

Arrays are float32, little endian; their shapes stand in the JSON. A line of its own, `GREETING` and
the version of resdeploy, comes before the first message: a shell may say things when it starts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from resdeploy.deploy.arrays import Float32s

GREETING = "resdeploy-device 1"
# batches that both sides remember, so that one goes over the line once for all sessions
REMEMBERED = 16

_LONGEST_LINE = 1 << 20
_FLOAT32 = np.dtype("<f4")


class GarbledError(ValueError):
    """What arrived is no message."""


@dataclass(frozen=True)
class Message:
    """What was said, and the bytes that came along."""

    fields: dict[str, Any]
    payloads: tuple[bytes, ...] = ()


def write_message(stream: IO[bytes], fields: Mapping[str, Any], *payloads: bytes) -> None:
    """Write one message and flush."""
    line = json.dumps({**fields, "bytes": [len(payload) for payload in payloads]})
    stream.write(f"{line}\n".encode())
    for payload in payloads:
        stream.write(payload)
    stream.flush()


def read_message(stream: IO[bytes]) -> Message:
    """Read one message.

    Raises:
        EOFError: the stream has ended, before a message or within it.
        GarbledError: no message.
    """
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    try:
        fields = json.loads(line)
        sizes = [int(size) for size in fields.pop("bytes")]
        fields["kind"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GarbledError(line[:80].decode(errors="replace")) from error
    return Message(fields, tuple(_exactly(stream, size) for size in sizes))


def array_bytes(array: Float32s) -> bytes:
    """The bytes that `array_of` reads."""
    return np.ascontiguousarray(array, _FLOAT32).tobytes()


def array_of(payload: bytes, shape: tuple[int, ...]) -> Float32s:
    """A float32 array of its own; raises GarbledError where the bytes do not fit the shape."""
    if len(payload) != _FLOAT32.itemsize * int(np.prod(shape)):
        raise GarbledError(f"{len(payload)} bytes for an array of shape {shape}")
    return np.frombuffer(payload, _FLOAT32).reshape(shape).astype(np.float32)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    payload = stream.read(size)
    if len(payload) != size:
        raise EOFError
    return payload
