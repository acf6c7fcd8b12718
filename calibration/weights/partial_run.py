"""Runs a graph piece by piece, so that each layer can be changed after what it reads is known.

Images stay in memory between the pieces as the tensors that later pieces still read, and nothing
else: what one layer reads is computed once, by everything before it in its final form. A tensor
behind DequantizeLinear is kept as the integers in front of it, a quarter of its size and without
loss, and a float tensor that float16 can hold is kept as such (an error of 66 dB or less).
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from resdeploy.calibration.graph.layers import Layer
from resdeploy.calibration.graph.topology import wire
from resdeploy.calibration.observe.moments import sample_patches
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.images.prefetch import in_order
from resdeploy.deploy.ort import open_graph, session_options

# Values of one tensor that a thread works on at a time: more of them leave its cache.
_VALUES_AT_ONCE, _MOST_AT_ONCE = 1 << 20, 16


@dataclass(frozen=True)
class Kept:
    """One batch of a tensor as it is kept: x = scale · (values − zero_point)."""

    values: npt.NDArray[Any]
    scale: float = 1.0
    zero_point: int = 0

    def floats(self) -> Float32s:
        """The whole batch (N, …)."""
        return self._float(self.values.astype(np.float32))

    def patches(self, layer: Layer, random: np.random.Generator) -> Float32s:
        """What `sample_patches` gives of the batch, without making all of it floats."""
        return self._float(sample_patches(layer, self.values, random, padding=self.zero_point))

    def _float(self, values: Float32s) -> Float32s:
        if self.zero_point:
            values -= np.float32(self.zero_point)
        if self.scale != 1.0:
            values *= np.float32(self.scale)
        return values


@dataclass(frozen=True)
class _Form:
    """How a tensor is kept between pieces: `name` and type of what is kept, and the node that
    makes the tensor of it again; `pack` makes what is kept, where the graph has no node for it."""

    name: str
    dtype: int
    restore: NodeProto | None = None
    pack: NodeProto | None = None
    scale: float = 1.0
    zero_point: int = 0


class PartialRun:
    """A graph run as far as it was asked for; Q/DQ pairs compute what the graph says."""

    def __init__(
        self,
        model: onnx.ModelProto,
        batches: Sequence[Float32s],
        threads: int,
        *,
        halves: Collection[str] = (),
    ) -> None:
        """`batches` are the graph's inputs, each (N, 3, H, W); `halves` tensors whose values
        float16 can hold."""
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._threads = threads
        self._halves = halves
        self._wiring = wire(model)
        self._pending = list(self._wiring.nodes)
        ends = np.cumsum([len(batch) for batch in batches]).tolist()
        self._batches = [slice(*ends) for ends in zip([0, *ends], ends, strict=False)]
        # One array for all images: what is freed goes back to the system, not into small pieces.
        self._live: dict[str, npt.NDArray[Any]] = {self._wiring.inputs[0]: np.concatenate(batches)}
        self._forms = {self._wiring.inputs[0]: _Form(self._wiring.inputs[0], TensorProto.FLOAT)}

    def read_by(self, node: str) -> str:
        """The tensor that a node reads as its first input."""
        return str(next(n.input[0] for n in self._wiring.nodes if n.name == node))

    def at(self, tensor: str, changed: Mapping[str, Float32s] | None = None) -> list[Kept]:
        """The tensor for every batch.

        `changed` constants hold from here on, for nodes that have not been run yet.

        Raises:
            GraphError: ONNX Runtime cannot run the piece.
        """
        for name, constant in (changed or {}).items():
            self._constants[name] = numpy_helper.from_array(constant, name)
        if tensor not in self._live:
            self._advance(tensor)
        form = self._forms[tensor]
        values = self._live[tensor]
        result = [Kept(values[batch], form.scale, form.zero_point) for batch in self._batches]
        self._drop_read()
        return result

    def _advance(self, tensor: str) -> None:
        piece = self._piece(tensor)
        done = {node.name for node in piece}
        self._pending = [node for node in self._pending if node.name not in done]
        made = {name for node in piece for name in node.output}
        wanted = [name for name in made if name == tensor or self._is_pending(name)]
        inputs = sorted({name for node in piece for name in node.input if name in self._live})
        self._forms |= {name: self._form(name) for name in wanted}
        session = self._session(piece, inputs, wanted)
        total = self._batches[-1].stop
        # The first image tells the shapes.
        feed = {self._forms[name].name: self._live[name][:1] for name in inputs}
        results = session.run([self._forms[name].name for name in wanted], feed)
        for name, values in zip(wanted, results, strict=True):
            self._live[name] = np.empty((total, *values.shape[1:]), values.dtype)
            self._live[name][:1] = values
        size = _images_at_once(self._live[name] for name in (*inputs, *wanted))
        parts = [slice(start, min(start + size, total)) for start in range(1, total, size)]
        run = partial(self._run, session, inputs, wanted)
        deque(in_order(run, parts, threads=self._threads), maxlen=0)

    def _run(
        self,
        session: ort.InferenceSession,
        inputs: Sequence[str],
        wanted: Sequence[str],
        part: slice,
    ) -> None:
        """Run some images; what they give is written where it is kept."""
        binding = session.io_binding()
        for name in inputs:
            binding.bind_cpu_input(self._forms[name].name, self._live[name][part])
        for name in wanted:
            kept = self._live[name][part]
            output = self._forms[name].name
            binding.bind_output(output, "cpu", 0, kept.dtype, kept.shape, kept.ctypes.data)
        session.run_with_iobinding(binding)

    def _piece(self, tensor: str) -> list[NodeProto]:
        """The nodes not run yet that `tensor` depends on, in graph order."""
        needed, piece = {tensor}, []
        for node in reversed(self._pending):
            if needed.intersection(node.output):
                piece.append(node)
                needed.update(name for name in node.input if name not in self._live)
        return piece[::-1]

    def _form(self, tensor: str) -> _Form:
        """How to keep a tensor: as integers, else as halves, else as it is."""
        node = self._wiring.producer[tensor]
        if node.op_type == "DequantizeLinear" and node.input[0] in self._wiring.producer:
            scale, zero = (numpy_helper.to_array(self._constants[n]) for n in node.input[1:3])
            dtype = self._constants[node.input[2]].data_type
            return _Form(node.input[0], dtype, node, scale=float(scale), zero_point=int(zero))
        if tensor not in self._halves:
            return _Form(tensor, TensorProto.FLOAT)
        name = f"{tensor}.half"
        pack = helper.make_node("Cast", [tensor], [name], to=TensorProto.FLOAT16)
        restore = helper.make_node("Cast", [name], [tensor], to=TensorProto.FLOAT)
        return _Form(name, TensorProto.FLOAT16, restore, pack)

    def _session(
        self, piece: list[NodeProto], inputs: list[str], outputs: list[str]
    ) -> ort.InferenceSession:
        given, made = ([self._forms[name] for name in names] for names in (inputs, outputs))
        before = [form.restore for form in given if form.restore is not None]
        after = [form.pack for form in made if form.pack is not None]
        nodes = [*before, *piece, *after]
        read = {name for node in nodes for name in node.input}
        graph = onnx.GraphProto(name="piece", node=nodes)
        graph.initializer.extend(t for name, t in self._constants.items() if name in read)
        for forms, target in ((given, graph.input), (made, graph.output)):
            target.extend(helper.make_tensor_value_info(f.name, f.dtype, None) for f in forms)
        model = onnx.ModelProto(ir_version=self._model.ir_version, graph=graph)
        model.opset_import.extend(self._model.opset_import)
        options = session_options("int8", 1)
        return open_graph(model.SerializeToString(), "ort-cpu", options)

    def _is_pending(self, tensor: str) -> bool:
        return any(tensor in node.input for node in self._pending)

    def _drop_read(self) -> None:
        self._live = {name: v for name, v in self._live.items() if self._is_pending(name)}


def _images_at_once(tensors: Iterable[npt.NDArray[Any]]) -> int:
    """Images, by the largest of these tensors (N, …)."""
    largest = max(int(tensor[0].size) for tensor in tensors)
    return min(_MOST_AT_ONCE, max(1, _VALUES_AT_ONCE // largest))
