"""Runs a TensorRT engine, of any TensorRT from 8.5 to 11 and of TensorRT-RTX.

Only members that all of them have are used, and memory goes through `cuda`: no torch, no pycuda.
A session has a small pool of lanes (`trt_lane`), each an execution context with its own stream and
buffers, so that several threads run at once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.cuda import Cuda, cuda_problem, device, load_cuda
from resdeploy.deploy.engine_builder import BuildLog
from resdeploy.deploy.engine_hints import explain
from resdeploy.deploy.engine_sidecar import Machine, Sidecar, read_plan
from resdeploy.deploy.engine_store import find_engine
from resdeploy.deploy.errors import BackendError, EngineError
from resdeploy.deploy.flavor import Flavor, import_tensorrt, version_numbers
from resdeploy.deploy.session import Model, check_batch, sizes_of
from resdeploy.deploy.specs import Backend, BatchRange, Precision, TensorSpec, Variant
from resdeploy.deploy.trt_lane import Lane

# Every context holds memory for the largest batch; two keep a GPU busy.
_CONTEXTS = 2


class TensorrtSession:
    """A `Session` over a TensorRT engine; `run` may be called from several threads at once.

    A batch above the engine's largest is split; one below its smallest is padded with zeros, whose
    logits are dropped.
    """

    def __init__(
        self,
        plan: bytes,
        sidecar: Sidecar,
        trt: Any,
        cuda: Cuda,
        *,
        unified_memory: bool = False,
        contexts: int = _CONTEXTS,
    ) -> None:
        """Deserialize a plan whose sidecar was found to fit this machine; see `open_engine`.

        Args:
            trt: the flavour's module.
            unified_memory: whether the device shares the host's memory (a Jetson).
            contexts: how many threads run at once; others wait.

        Raises:
            EngineError: TensorRT refuses the plan, or it is not an engine of ours.
        """
        self.backend: Backend = sidecar.machine.flavor
        self.variant: Variant = sidecar.variant
        self._cuda = cuda
        self._unified = unified_memory
        self._log = BuildLog()
        self._logger = self._log.logger(trt)  # must outlive the runtime
        self._runtime = trt.Runtime(self._logger)
        if sidecar.options.version_compatible:
            # such a plan carries the lean runtime it was built with, as code
            self._runtime.engine_host_code_allowed = True
        if sidecar.options.dla_core is not None:
            self._runtime.DLA_core = sidecar.options.dla_core
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            reason = explain(self._log.errors, has_gpu=True)
            raise EngineError(f"{self.backend} refuses the engine: {reason}: build it again")
        self.input, self.output = _interface(trt, self._engine)
        self.batch_range = _batch_range(self._engine, self.input.name)
        # before 10, two contexts cannot share the one optimization profile
        shares_profile = sidecar.machine.flavor == "tensorrt-rtx" or version_numbers(trt)[0] >= 10
        self._most = contexts if shares_profile else 1
        self._made = 0
        self._idle: list[Lane] = []
        self._changed = threading.Condition()
        self._closed = False
        try:
            self._idle.append(self._new_lane())
        except BaseException:
            self.close()
            raise

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) float32 to (N, classes) float32, for any N.

        Raises:
            InputError: wrong shape or dtype.
            BackendError: the GPU failed.
        """
        check_batch(batch, self.input)
        logits = np.empty((len(batch), *sizes_of(self.output)), np.float32)
        start = 0
        for size in _even_parts(len(batch), self.batch_range.max):
            part = slice(start, start + size)
            with self._lane(max(size, self.batch_range.min)) as lane:
                lane.run(batch[part], logits[part])
            start += size
        return logits

    def close(self) -> None:
        """Release contexts, buffers and the engine; lanes that are running when they return."""
        with self._changed:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._changed.notify_all()
        self._engine = None
        self._runtime = None

    def __enter__(self) -> "TensorrtSession":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _lane(self, size: int) -> Iterator[Lane]:
        lane = self._take(size)
        try:
            lane.prepare(size)
            yield lane
        except BaseException:
            # its context may be in any state: the next run gets a new one
            lane.close()
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise
        with self._changed:
            if self._closed:
                lane.close()
            else:
                self._idle.append(lane)
            self._changed.notify()

    def _take(self, size: int) -> Lane:
        """An idle lane, best one that ran this batch size last; a new one while there may be."""
        with self._changed:
            while True:
                if self._closed:
                    raise ValueError("the session is closed")
                fitting = next((lane for lane in self._idle if lane.size == size), None)
                if fitting is not None:
                    self._idle.remove(fitting)
                    return fitting
                if self._made < self._most:
                    return self._new_lane()
                if self._idle:
                    return self._idle.pop(0)
                self._changed.wait()

    def _new_lane(self) -> Lane:
        lane = Lane(
            self._cuda,
            self._engine,
            self._log,
            (self.input, self.output),
            self.batch_range.max,
            unified_memory=self._unified,
        )
        self._made += 1
        return lane


def open_engine(model: Model, precision: Precision, flavor: Flavor) -> TensorrtSession:
    """Open the engine of this precision that was built for this machine.

    Raises:
        BackendError, MissingDependencyError: no GPU, or the flavour is not installed.
        EngineError: none was built, or those there do not fit; says what differs and what to do.
    """
    if problem := cuda_problem():
        raise BackendError(f"backend {flavor} needs an NVIDIA GPU: {problem}; use ort-cpu")
    trt = import_tensorrt(flavor)
    cuda = load_cuda()
    engine = find_engine(model, precision, Machine.here(flavor, trt.__version__))
    gpu = device()
    return TensorrtSession(
        read_plan(engine.path),
        engine.sidecar,
        trt,
        cuda,
        unified_memory=gpu is not None and gpu.integrated,
    )


def _interface(trt: Any, engine: Any) -> tuple[TensorSpec, TensorSpec]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) for name in names}
    inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]
    floats = all(engine.get_tensor_dtype(name) == trt.DataType.FLOAT for name in names)
    if len(inputs) != 1 or len(outputs) != 1 or not floats:
        raise EngineError(
            f"the engine has tensors {', '.join(names) or 'none'}, expected one float32 input and "
            "one float32 output: build it with resdeploy build"
        )
    input, output = (
        TensorSpec(name, ("batch", *tuple(engine.get_tensor_shape(name))[1:]), "float32")
        for name in (inputs[0], outputs[0])
    )
    return input, output


def _batch_range(engine: Any, name: str) -> BatchRange:
    shapes = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)]
    smallest, usual, largest = (int(shape[0]) for shape in shapes)
    return BatchRange(smallest, usual, largest)


def _even_parts(total: int, most: int) -> list[int]:
    """`total` as the fewest parts of at most `most`, as equal as they can be."""
    pieces = -(-total // most)
    size, larger = divmod(total, pieces)
    return [size + 1] * larger + [size] * (pieces - larger)
