"""Runs a TensorRT engine, of any TensorRT from 8.5 to 11 and of TensorRT-RTX.

Only members that all of them have are used, and memory goes through `cuda`: no torch, no pycuda.
A session has a small pool of execution contexts (`execution_context`), each with its own stream and
buffers, so that several threads run at once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import bundle_of
from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.cuda import Cuda, cuda_problem, device, load_cuda
from resdeploy.deploy.engine.error_hints import explain
from resdeploy.deploy.engine.execution_context import ExecutionContext
from resdeploy.deploy.engine.flavor import (
    Flavor,
    import_tensorrt,
    is_installed,
    missing_message,
    version_numbers,
)
from resdeploy.deploy.engine.log import BuildLog, collection_paused
from resdeploy.deploy.engine.sidecar import Machine, Sidecar, needed_by, read_plan, read_sidecar
from resdeploy.deploy.engine.store import find_engine
from resdeploy.deploy.errors import BackendError, EngineError, MissingDependencyError
from resdeploy.deploy.session import ClosesOnExit, check_batch, sizes_of
from resdeploy.deploy.specs import Backend, BatchRange, Precision, TensorSpec, Variant

# Every context holds memory for the largest batch; two keep a GPU busy.
_CONTEXTS = 2


class TensorrtSession(ClosesOnExit):
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
        """Deserialize a plan whose sidecar fits this machine; see `open_engine`.

        `trt` is the flavour's module. With `unified_memory` the device shares the host's memory (a
        Jetson). `contexts` threads run at once; others wait.

        Raises:
            EngineError: TensorRT refuses the plan, or it is not an engine of ours.
        """
        self.backend: Backend = sidecar.machine.flavor
        self.variant: Variant = sidecar.variant
        self.threads: int | None = None
        self._cuda = cuda
        self._unified = unified_memory
        self._log = BuildLog()
        self._logger = self._log.logger(trt)  # must outlive the runtime
        self._runtime = _runtime(trt, self._logger, sidecar)
        self._engine = _deserialized(self._runtime, plan, self._log, self.backend)
        self.input, self.outputs = _interface(trt, self._engine)
        self.output = self.outputs[-1]
        self.batch_range = _batch_range(self._engine, self.input.name)
        self._most = contexts if _shares_profile(trt, sidecar) else 1
        self._made = 0
        self._idle: list[ExecutionContext] = []
        self._changed = threading.Condition()
        self._closed = False
        try:
            self._idle.append(self._new_context())
        except BaseException:
            self.close()
            raise

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, classes) float32, for any N.

        Raises:
            InputError: wrong shape or dtype.
            BackendError: the GPU failed.
        """
        return self.run_all(batch)[self.output.name]

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """Every output by its name; else as `run`."""
        check_batch(batch, self.input)
        results = [np.empty((len(batch), *sizes_of(o)), np.float32) for o in self.outputs]
        start = 0
        for size in _even_parts(len(batch), self.batch_range.max):
            part = slice(start, start + size)
            with self._context(max(size, self.batch_range.min)) as context:
                context.run(batch[part], *(result[part] for result in results))
            start += size
        return dict(zip((output.name for output in self.outputs), results, strict=True))

    def close(self) -> None:
        """Release contexts, buffers and the engine; a context that is running, when it returns."""
        with self._changed:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._changed.notify_all()
        self._engine = None
        self._runtime = None

    @contextmanager
    def _context(self, size: int) -> Iterator[ExecutionContext]:
        context = self._take(size)
        try:
            context.prepare(size)
            yield context
        except BaseException:
            # its context may be in any state: the next run gets a new one
            context.close()
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise
        with self._changed:
            if self._closed:
                context.close()
            else:
                self._idle.append(context)
            self._changed.notify()

    def _take(self, size: int) -> ExecutionContext:
        """An idle context, if possible one that last ran this size; else a new one."""
        with self._changed:
            while True:
                if self._closed:
                    raise ValueError("the session is closed")
                fitting = next((context for context in self._idle if context.size == size), None)
                if fitting is not None:
                    self._idle.remove(fitting)
                    return fitting
                if self._made < self._most:
                    return self._new_context()
                if self._idle:
                    return self._idle.pop(0)
                self._changed.wait()

    def _new_context(self) -> ExecutionContext:
        context = ExecutionContext(
            self._cuda,
            self._engine,
            self._log,
            (self.input, *self.outputs),
            self.batch_range.max,
            unified_memory=self._unified,
        )
        self._made += 1
        return context


def open_engine(model: Model, precision: Precision, flavor: Flavor) -> TensorrtSession:
    """Open the engine of this precision that was built for this machine.

    Raises:
        BackendError, MissingDependencyError: no GPU, or the flavour is not installed.
        EngineError: none was built, or those there do not fit; says what differs and what to do.
    """
    if model.is_engine:
        _check_lone(model.path, flavor)
    elif problem := cuda_problem():
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


def _check_lone(engine: Path, flavor: Flavor) -> None:
    """Say what a lone engine needs where that is not here, and what can be done without it."""
    sidecar = read_sidecar(engine)
    if flavor != sidecar.machine.flavor:
        raise BackendError(f"{engine}: runs with backend {sidecar.machine.flavor}, not {flavor}")
    if problem := cuda_problem():
        raise BackendError(
            f"{engine}: needs {needed_by(sidecar)}: {problem}; on this machine the bundle it was "
            f"built from predicts on the CPU: resdeploy predict {bundle_of(engine)} IMAGE"
        )
    if not is_installed(flavor):
        raise MissingDependencyError(
            f"{engine}: needs {needed_by(sidecar)}: {missing_message(flavor, this=True)}",
            exit_code=4,
        )


def _shares_profile(trt: Any, sidecar: Sidecar) -> bool:
    """Before 10, two contexts cannot share the one optimization profile."""
    return sidecar.machine.flavor == "tensorrt-rtx" or version_numbers(trt)[0] >= 10


@collection_paused()
def _runtime(trt: Any, logger: Any, sidecar: Sidecar) -> Any:
    runtime = trt.Runtime(logger)
    if sidecar.options.version_compatible:
        # such a plan carries the lean runtime it was built with, as code
        runtime.engine_host_code_allowed = True
    if sidecar.options.dla_core is not None:
        runtime.DLA_core = sidecar.options.dla_core
    return runtime


@collection_paused()
def _deserialized(runtime: Any, plan: bytes, log: BuildLog, backend: Backend) -> Any:
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = explain(log.errors, has_gpu=True)
        raise EngineError(f"{backend} refuses the engine: {reason}: build it again")
    return engine


def _interface(trt: Any, engine: Any) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) for name in names}
    inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]
    floats = all(engine.get_tensor_dtype(name) == trt.DataType.FLOAT for name in names)
    if len(inputs) != 1 or not outputs or not floats:
        raise EngineError(
            f"the engine has tensors {', '.join(names) or 'none'}, expected one float32 input and "
            "float32 outputs: build it with resdeploy build"
        )
    input, *results = (
        TensorSpec(name, ("batch", *tuple(engine.get_tensor_shape(name))[1:]), "float32")
        for name in (inputs[0], *outputs)
    )
    return input, tuple(results)


def _batch_range(engine: Any, name: str) -> BatchRange:
    shapes = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)]
    smallest, usual, largest = (int(shape[0]) for shape in shapes)
    return BatchRange(smallest, usual, largest)


def _even_parts(total: int, most: int) -> list[int]:
    """`total` as the fewest parts of at most `most`, as equal as they can be."""
    pieces = -(-total // most)
    size, larger = divmod(total, pieces)
    return [size + 1] * larger + [size] * (pieces - larger)
