"""Runs pictures through the float graph once and shows chosen tensors to accumulators.

The tensors become extra outputs of the graph. ONNX Runtime writes them into the same buffers batch
after batch, so memory does not grow with the number of pictures; accumulators look at a batch while
it lies there and keep only their own state.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from resdeploy.deploy.errors import CalibrationError, GraphError
from resdeploy.deploy.machine import cores
from resdeploy.deploy.ort import first_line, session_options

Batch = npt.NDArray[np.float32]


class Accumulator(Protocol):
    """Anything that learns from one tensor, a batch (N, …) at a time.

    The array is overwritten by the next batch: keep what was computed from it, never the array.
    """

    def update(self, values: Batch) -> None: ...


def collect(
    model: onnx.ModelProto,
    batches: Iterable[Batch],
    accumulators: Mapping[str, Sequence[Accumulator]],
    *,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda pictures: None,
) -> int:
    """Feed every batch (N, 3, H, W) through `model`; returns the number of pictures.

    Args:
        accumulators: tensor name → what learns from it, the graph's input included. Tensors are
            served by several threads, the accumulators of one tensor by one of them.
        threads: processors to use (default: all this process may use).
        progress: called after each batch with the number of pictures so far.

    Raises:
        GraphError: a tensor is not in the graph, or ONNX Runtime cannot run it.
        CalibrationError: a tensor holds NaN or infinite values, or there was no picture.
    """
    threads = threads or cores()
    tensors = list(accumulators)
    tap = _Tap(model, tensors, threads)
    pictures = 0
    with ThreadPoolExecutor(threads) as pool:

        def serve(tensor: str, values: Batch) -> None:
            try:
                for accumulator in accumulators[tensor]:
                    accumulator.update(values)
            except FloatingPointError as error:
                raise CalibrationError(
                    f"tensor {tensor!r} has {error} on pictures {pictures} to "
                    f"{pictures + len(values) - 1}: check the checkpoint's weights, "
                    "or leave these pictures out"
                ) from error

        for batch in batches:
            outputs = tap.run(batch)
            list(pool.map(serve, tensors, outputs))
            pictures += len(batch)
            progress(pictures)
    if not pictures:
        raise CalibrationError("no picture to calibrate with")
    return pictures


class _Tap:
    """A session whose outputs are the tensors asked for, written into buffers that stay."""

    def __init__(self, model: onnx.ModelProto, tensors: list[str], threads: int) -> None:
        self._input = model.graph.input[0].name
        self._tensors = tensors
        self._outputs = [tensor for tensor in tensors if tensor != self._input]
        known = {tensor for node in model.graph.node for tensor in node.output}
        unknown = [tensor for tensor in self._outputs if tensor not in known]
        if unknown:
            raise GraphError(f"the graph has no tensor {unknown[0]!r}: measure the ranges again")
        try:
            self._session = ort.InferenceSession(
                _with_outputs(model, self._outputs).SerializeToString(),
                session_options(threads=threads),
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # onnxruntime raises its own classes derived from Exception
            raise GraphError(f"ONNX Runtime cannot load the graph: {first_line(error)}") from error
        self._buffers: dict[str, Batch] = {}
        self._binding = self._session.io_binding()

    def run(self, batch: Batch) -> list[Batch]:
        """The tensors of this batch, in order; they are overwritten by the next run."""
        batch = np.ascontiguousarray(batch, np.float32)
        try:
            size = len(next(iter(self._buffers.values()), ()))
            if size == len(batch):
                self._bind_input(batch)
                self._session.run_with_iobinding(self._binding)
            else:
                # A first or shorter batch tells the shapes; its results become the buffers.
                results = self._session.run(self._outputs or None, {self._input: batch})
                self._buffers = dict(zip(self._outputs, results, strict=False))
                self._bind_outputs()
        except Exception as error:  # onnxruntime raises its own classes derived from Exception
            raise GraphError(f"ONNX Runtime cannot run the graph: {first_line(error)}") from error
        return [batch if t == self._input else self._buffers[t] for t in self._tensors]

    def _bind_input(self, batch: Batch) -> None:
        self._binding.bind_input(self._input, "cpu", 0, np.float32, batch.shape, batch.ctypes.data)

    def _bind_outputs(self) -> None:
        self._binding = self._session.io_binding()
        for name, buffer in self._buffers.items():
            self._binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)


def _with_outputs(model: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    if tensors:
        del tapped.graph.output[:]
    tapped.graph.output.extend(
        helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None) for tensor in tensors
    )
    return tapped
