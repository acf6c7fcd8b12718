"""Runs images through the float graph once and shows chosen tensors to accumulators.

The tensors become extra outputs of the graph. ONNX Runtime writes them into the same buffers batch
after batch, so memory does not grow with the number of images; accumulators look at a batch while
it lies there and keep only their own state.

Carrying a tensor out whole costs about as much as computing it. Where its accumulators say that
they need less, the graph extracts it (see `taps`), and only that is carried out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
import onnxruntime as ort

from resdeploy.calibration.observe.taps import Need, add_taps
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import CalibrationError, GraphError, first_line
from resdeploy.deploy.machine import cores
from resdeploy.deploy.ort import open_graph, session_options


class Accumulator(Protocol):
    """Anything that learns from one tensor, a batch (N, …) at a time.

    The array is overwritten by the next batch: keep what was computed from it, never the array.
    """

    @property
    def needs(self) -> Need:
        """The part of the tensor that is enough."""
        ...

    def update(self, values: Float32s) -> None:
        """Take in a batch (N, …)."""
        ...


def collect(
    model: onnx.ModelProto,
    batches: Iterable[Float32s],
    accumulators: Mapping[str, Sequence[Accumulator]],
    *,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> int:
    """Feed every batch (N, 3, H, W) through `model`; returns the number of images.

    Args:
        model: the float graph. batches: its inputs.
        accumulators: tensor name → what learns from it, the graph's input included. They are
            served one after the other: ONNX Runtime's threads still spin for a while after each
            run, so more threads of ours would only take their cores (1.45 → 1.25 s for min-max
            over 128 images of MobileNetV2 on 2 cores).
        threads: of ONNX Runtime (default: all processors this process may use).
        progress: called after each batch with the number of images so far.

    Raises:
        GraphError: a tensor is not in the graph, or ONNX Runtime cannot run it.
        CalibrationError: a tensor holds NaN or infinite values, or there was no image.
    """
    groups = _groups(accumulators)
    wanted = [(group.tensor, group.need) for group in groups]
    session = _TappedSession(model, wanted, threads or cores())
    images = 0
    for batch in batches:
        for group, values in zip(groups, session.run(batch), strict=True):
            _show(group, values, images)
        images += len(batch)
        progress(images)
    if not images:
        raise CalibrationError("no image to calibrate with")
    return images


@dataclass(frozen=True)
class _Group:
    """Accumulators that are shown the same part of the same tensor."""

    tensor: str
    need: Need
    learners: Sequence[Accumulator]


def _show(group: _Group, values: Float32s, images: int) -> None:
    """Show a batch to a group; `images` were shown before it."""
    try:
        for learner in group.learners:
            learner.update(values)
    except FloatingPointError as error:
        raise CalibrationError(
            f"tensor {group.tensor!r} has {error} on images {images} to "
            f"{images + len(values) - 1}: check the checkpoint's weights, "
            "or leave these images out"
        ) from error


def _groups(accumulators: Mapping[str, Sequence[Accumulator]]) -> list[_Group]:
    """Who is shown which part of which tensor: all of it to everybody, once one needs all."""
    groups: list[_Group] = []
    for tensor, learners in accumulators.items():
        by_need: dict[Need, list[Accumulator]] = {}
        for learner in learners:
            by_need.setdefault(learner.needs, []).append(learner)
        if "whole" in by_need:
            by_need = {"whole": list(learners)}
        groups += [_Group(tensor, need, part) for need, part in by_need.items()]
    return groups


class _TappedSession:
    """A session whose outputs are the taps asked for, written into buffers that stay."""

    def __init__(
        self, model: onnx.ModelProto, wanted: Sequence[tuple[str, Need]], threads: int
    ) -> None:
        self._input = model.graph.input[0].name
        known = {tensor for node in model.graph.node for tensor in node.output}
        unknown = [tensor for tensor, _ in wanted if tensor not in known | {self._input}]
        if unknown:
            raise GraphError(f"the graph has no tensor {unknown[0]!r}: measure the ranges again")
        tapped, self._taps = add_taps(model, wanted)
        self._outputs = [value.name for value in tapped.graph.output]
        options = session_options(threads=threads)
        # Nodes in the order of their numbers. By default the branches come last, and all tensors
        # wait for them: 635 instead of 308 MiB for 8 images of MobileNetV2.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        self._session = open_graph(tapped.SerializeToString(), "ort-cpu", options)
        self._buffers: dict[str, Float32s] = {}
        self._binding = self._session.io_binding()

    def run(self, batch: Float32s) -> list[Float32s]:
        """The taps of this batch, in order; they are overwritten by the next run."""
        batch = np.ascontiguousarray(batch, np.float32)
        try:
            size = len(next(iter(self._buffers.values()), ()))
            if size == len(batch):
                self._binding.bind_input(
                    self._input, "cpu", 0, np.float32, batch.shape, batch.ctypes.data
                )
                self._session.run_with_iobinding(self._binding)
            else:
                # A first or shorter batch tells the shapes; its results become the buffers.
                results = self._session.run(self._outputs, {self._input: batch})
                self._buffers = dict(zip(self._outputs, results, strict=True))
                self._bind_outputs()
        except Exception as error:  # onnxruntime raises its own classes derived from Exception
            raise GraphError(f"ONNX Runtime cannot run the graph: {first_line(error)}") from error
        held = {self._input: batch, **self._buffers}
        return [tap.assemble(held[tap.output]) for tap in self._taps]

    def _bind_outputs(self) -> None:
        self._binding = self._session.io_binding()
        for name, buffer in self._buffers.items():
            self._binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
