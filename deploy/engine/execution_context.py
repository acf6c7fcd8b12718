"""One TensorRT execution context with its stream and page-locked buffers.

Once a batch size has come twice in a row, a CUDA graph of it is recorded, compared with the plain
run, and replayed from then on. On a Jetson, whose GPU shares the memory, the device reads and
writes the host buffers directly and nothing is copied.
"""

import ctypes
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cuda import Cuda
from resdeploy.deploy.engine.error_hints import explain
from resdeploy.deploy.engine.log import BuildLog
from resdeploy.deploy.errors import BackendError, EngineError
from resdeploy.deploy.session import sizes_of
from resdeploy.deploy.specs import TensorSpec

# A replay runs the same kernels on the same numbers.
_REPLAY_TOLERANCE = 1e-4
_FLOAT_BYTES = 4

_log = logging.getLogger(__name__)


class ExecutionContext:
    """A TensorRT context with what one run needs; used by one thread at a time."""

    def __init__(
        self,
        cuda: Cuda,
        engine: Any,
        log: BuildLog,
        tensors: tuple[TensorSpec, ...],
        most: int,
        *,
        unified_memory: bool,
    ) -> None:
        """`tensors` are the input and the outputs, `most` the engine's largest batch."""
        self.size = 0
        self._cuda = cuda
        self._log = log
        self._input = tensors[0]
        self._unified = unified_memory
        self._graph: int | None = None
        self._runs = 0
        self._resources = ExitStack()
        with ExitStack() as undo:
            undo.push(self._resources)
            self._context = engine.create_execution_context()
            if self._context is None:
                raise BackendError(f"no execution context: {explain(log.errors, has_gpu=True)}")
            self._stream = cuda.create_stream()
            self._resources.callback(cuda.destroy_stream, self._stream)
            self._host_in, self._source, self._device_in = self._buffer(tensors[0], most)
            self._context.set_tensor_address(tensors[0].name, self._device_in)
            self._outputs = [self._buffer(tensor, most) for tensor in tensors[1:]]
            for tensor, (_, _, address) in zip(tensors[1:], self._outputs, strict=True):
                self._context.set_tensor_address(tensor.name, address)
            undo.pop_all()

    def run(self, batch: Float32s, *results: Float32s) -> None:
        """Run one batch that fits the profile and write each output into its array."""
        self._host_in[: len(batch)] = batch
        self._host_in[len(batch) : self.size] = 0.0
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._enqueue()
        self._cuda.synchronize(self._stream)
        for result, (host, _, _) in zip(results, self._outputs, strict=True):
            result[:] = host[: len(batch)]
        self._runs += 1
        if self._runs == 2:
            self._record([np.array(result) for result in results])

    def prepare(self, size: int) -> None:
        """Set the batch size of the next runs."""
        if size == self.size:
            return
        # a graph is bound to the context's state, which the new shape changes
        self._drop_graph()
        if not self._context.set_input_shape(self._input.name, (size, *sizes_of(self._input))):
            raise EngineError(
                f"batch {size} of input {self._input.name} was refused: "
                f"{explain(self._log.errors, has_gpu=True)}"
            )
        self.size, self._runs = size, 0

    def close(self) -> None:
        """Release everything, whatever state it is in."""
        self._drop_graph()
        self._context = None
        self._resources.close()

    def _enqueue(self) -> None:
        if not self._unified:
            size_bytes = self.size * _row_bytes(self._host_in)
            self._cuda.copy_to_device(self._device_in, self._source, size_bytes, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise BackendError(f"inference failed: {explain(self._log.errors, has_gpu=True)}")
        if not self._unified:
            for host, target, address in self._outputs:
                size_bytes = self.size * _row_bytes(host)
                self._cuda.copy_to_host(target, address, size_bytes, self._stream)

    def _record(self, expected: Sequence[Float32s]) -> None:
        """Record a run as a CUDA graph; kept only if its replay gives the same outputs."""
        try:
            self._graph = self._captured()
            for host, _, _ in self._outputs:
                host[:] = np.nan
            self._cuda.launch(self._graph, self._stream)
            self._cuda.synchronize(self._stream)
        except BackendError as error:
            _log.info("no CUDA graph for batch %d: %s", self.size, error)
            self._drop_graph()
            return
        for wanted, (host, _, _) in zip(expected, self._outputs, strict=True):
            scale = float(np.abs(wanted).max()) or 1.0
            # written so that NaN counts as different
            if not float(np.abs(host[: len(wanted)] - wanted).max()) <= _REPLAY_TOLERANCE * scale:
                _log.warning("the CUDA graph of batch %d changes the outputs: not used", self.size)
                self._drop_graph()
                return

    def _captured(self) -> int:
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue()
        except BackendError:
            # the stream stays in capture until it is ended, whatever was recorded
            self._abandon_capture()
            raise
        return self._cuda.end_capture(self._stream)

    def _abandon_capture(self) -> None:
        try:
            self._cuda.destroy_graph(self._cuda.end_capture(self._stream))
        except BackendError as error:
            _log.debug("capture abandoned: %s", error)

    def _drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._cuda.destroy_graph(graph)

    def _buffer(self, tensor: TensorSpec, most: int) -> tuple[Float32s, int, int]:
        """A page-locked array (most, …), its address, and the address the device uses."""
        shape = (most, *sizes_of(tensor))
        count = int(np.prod(shape))
        address = self._cuda.allocate_host(count * _FLOAT_BYTES)
        self._resources.callback(self._cuda.free_host, address)
        array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
        if self._unified:
            return array.reshape(shape), address, self._cuda.device_address(address)
        on_device = self._cuda.allocate(count * _FLOAT_BYTES)
        self._resources.callback(self._cuda.free, on_device)
        return array.reshape(shape), address, on_device


def _row_bytes(array: Float32s) -> int:
    return int(np.prod(array.shape[1:])) * _FLOAT_BYTES
