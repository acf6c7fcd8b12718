"""The sessions of a device as sessions of this machine."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import MANIFEST, REFERENCE
from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.bundle.spec_json import spec_from_json
from resdeploy.deploy.errors import BackendError
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.session import ClosesOnExit, check_batch, sizes_of
from resdeploy.deploy.specs import BACKENDS, PRECISIONS, VARIANTS, Backend, Precision, TensorSpec
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.device.address import Device, DeviceFacts
from resdeploy.deploy.verification.device.connection import Connection
from resdeploy.deploy.verification.device.messages import (
    REMEMBERED,
    GarbledError,
    Message,
    array_bytes,
    array_of,
)

Named = TypeVar("Named", bound=str)


class Line:
    """A connection and the batches that the device remembers."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._sent: OrderedDict[str, None] = OrderedDict()

    def run(self, session: str, batch: Float32s, outputs: Sequence[TensorSpec]) -> list[Float32s]:
        """The outputs of one session for a batch, which is sent once for all of them.

        Raises:
            BackendError: the device was lost, or answers something else.
        """
        content = array_bytes(batch)
        digest = hashlib.sha256(content).hexdigest()
        asked = {
            "kind": "run",
            "session": session,
            "batch": digest,
            "shape": list(batch.shape),
            "outputs": [output.name for output in outputs],
        }
        with self._lock:  # what was sent and what is remembered there must not part
            payloads = () if digest in self._sent else (content,)
            if payloads:
                self._sent[digest] = None
                if len(self._sent) > REMEMBERED:
                    self._sent.popitem(last=False)
            answer = self.connection.ask(asked, *payloads)
        shapes = [(len(batch), *sizes_of(output)) for output in outputs]
        try:
            pairs = zip(answer.payloads, shapes, strict=True)
            return [array_of(payload, shape) for payload, shape in pairs]
        except (GarbledError, ValueError) as error:
            raise BackendError(
                f"{self.connection.device.host}: {session} answered with something else than "
                f"{shapes[-1]} float32: nothing was judged"
            ) from error


class DeviceSession(ClosesOnExit):
    """One session on a device; the connection belongs to whoever opened it."""

    threads = None

    def __init__(self, line: Line, name: str, fields: dict[str, Any]) -> None:
        self._line, self._name = line, name
        self.backend = _one_of(fields["backend"], BACKENDS)
        self.variant = _one_of(fields["variant"], VARIANTS)
        self.input = spec_from_json(fields["input"])
        self.outputs = tuple(spec_from_json(output) for output in fields["outputs"])
        self.output = self.outputs[-1]

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, classes) float32, computed on the device."""
        check_batch(batch, self.input)
        (logits,) = self._line.run(self._name, batch, [self.output])
        return logits

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """Every output by its name; else as `run`."""
        check_batch(batch, self.input)
        found = self._line.run(self._name, batch, self.outputs)
        return {output.name: values for output, values in zip(self.outputs, found, strict=True)}

    def close(self) -> None:
        """Nothing to release here: the device closes its sessions when the connection ends."""


def open_on_device(
    model: Model,
    precisions: Sequence[Precision],
    backends: Sequence[Backend | Literal["auto"]],
    device: Device,
    stack: ExitStack,
    progress: Progress,
) -> tuple[list[Candidate], DeviceFacts]:
    """Open every precision on every backend of the device; `stack` ends the connection.

    Raises:
        BackendError: the device cannot be reached, has no resdeploy of this version or no such
            backend.
        BundleError: the bundle there is missing or another one.
    """
    connection = stack.enter_context(Connection(device))
    paths = () if device.bundle is not None else _files(model, precisions)
    progress(f"opening sessions on {device.host}", 0, 0)
    asked = {
        "kind": "open",
        "bundle": device.bundle,
        "graph": None if model.bundle is not None else model.path.name,
        "files": len(paths),
        "precisions": list(precisions),
        "backends": list(backends),
        "sha256": {
            name: file.sha256
            for name, file in model.manifest.variants.items()
            if name.startswith(tuple(precisions))
        },
    }
    answer = _asked_with_files(connection, asked, paths, progress)
    line = Line(connection)
    try:
        candidates = [_candidate(line, device, fields) for fields in answer.fields["sessions"]]
        machine = str(answer.fields["machine"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BackendError(f"{device.host}: resdeploy there answered with no sessions") from error
    return candidates, DeviceFacts(str(device), machine)


def _files(model: Model, precisions: Sequence[Precision]) -> tuple[Path, ...]:
    """What the device needs of the bundle, checked; an ONNX file alone is all of it."""
    held = [name for name in model.manifest.variants if name.startswith(tuple(precisions))]
    graphs = [model.graph(name) for name in held]
    if model.bundle is None:
        return tuple(graphs)
    others = [model.path / name for name in (MANIFEST, REFERENCE)]
    return (*(path for path in others if path.is_file()), *graphs)


def _asked_with_files(
    connection: Connection, asked: dict[str, Any], paths: Sequence[Path], progress: Progress
) -> Message:
    """Ask, with the files behind the question; the answer comes after the last of them."""
    if not paths:
        return connection.ask(asked)
    connection.send(asked)
    step = f"sending files to {connection.device.host}"
    for done, path in enumerate(paths[:-1], start=1):
        connection.send({"kind": "file", "name": path.name}, path.read_bytes())
        progress(step, done, len(paths))
    return connection.ask({"kind": "file", "name": paths[-1].name}, paths[-1].read_bytes())


def _candidate(line: Line, device: Device, fields: dict[str, Any]) -> Candidate:
    session = DeviceSession(line, str(fields["name"]), fields)
    return Candidate(
        name=str(fields["name"]),
        precision=_one_of(fields["precision"], PRECISIONS),
        variant=session.variant,
        backend=session.backend,
        session=session,
        host=device.host,
    )


def _one_of(value: Any, allowed: Sequence[Named]) -> Named:
    """`value`, once it is one of the names that are known here."""
    if value not in allowed:
        raise ValueError(f"{value!r}")
    return allowed[allowed.index(value)]
