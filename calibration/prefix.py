"""Runs a graph piece by piece, so that each layer can be changed after what it reads is known.

Pictures stay in memory between the pieces as the tensors that later pieces still read, and nothing
else: what one layer reads is computed once, by everything before it in its final form.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import NodeProto, helper, numpy_helper

from resdeploy.calibration.wiring import wire
from resdeploy.deploy.ort import open_graph, session_options

Floats = npt.NDArray[np.float32]


class Prefix:
    """A graph run as far as it was asked for; Q/DQ pairs compute what the graph says."""

    def __init__(self, model: onnx.ModelProto, batches: Sequence[Floats], threads: int) -> None:
        """`batches` are the graph's inputs, each (N, 3, H, W)."""
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._threads = threads
        self._wiring = wire(model)
        self._pending = list(self._wiring.nodes)
        self._live: dict[str, list[Floats]] = {self._wiring.inputs[0]: list(batches)}

    def read_by(self, node: str) -> str:
        """The tensor that a node reads as its first input."""
        return str(next(n.input[0] for n in self._wiring.nodes if n.name == node))

    def at(self, tensor: str, changed: Mapping[str, Floats] | None = None) -> list[Floats]:
        """The tensor for every batch.

        `changed` constants hold from here on, for nodes that have not been run yet.

        Raises:
            GraphError: ONNX Runtime cannot run the piece.
        """
        for name, values in (changed or {}).items():
            self._constants[name] = numpy_helper.from_array(values, name)
        if tensor not in self._live:
            self._advance(tensor)
        result = self._live[tensor]
        self._drop_read()
        return result

    def _advance(self, tensor: str) -> None:
        piece = self._piece(tensor)
        done = {node.name for node in piece}
        self._pending = [node for node in self._pending if node.name not in done]
        written = {name for node in piece for name in node.output}
        wanted = [name for name in written if name == tensor or self._is_pending(name)]
        inputs = sorted({name for node in piece for name in node.input if name in self._live})
        session = self._session(piece, inputs, wanted)
        for name in wanted:
            self._live[name] = []
        for batch in range(len(next(iter(self._live.values())))):
            feed = {name: self._live[name][batch] for name in inputs}
            for name, values in zip(wanted, session.run(wanted, feed), strict=True):
                self._live[name].append(values)

    def _piece(self, tensor: str) -> list[NodeProto]:
        """The nodes not run yet that `tensor` depends on, in graph order."""
        needed, piece = {tensor}, []
        for node in reversed(self._pending):
            if needed.intersection(node.output):
                piece.append(node)
                needed.update(name for name in node.input if name not in self._live)
        return piece[::-1]

    def _session(
        self, piece: list[NodeProto], inputs: list[str], outputs: list[str]
    ) -> ort.InferenceSession:
        read = {name for node in piece for name in node.input}
        graph = onnx.GraphProto(name="piece", node=piece)
        graph.initializer.extend(t for name, t in self._constants.items() if name in read)
        for names, target in ((inputs, graph.input), (outputs, graph.output)):
            target.extend(
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
            )
        model = onnx.ModelProto(ir_version=self._model.ir_version, graph=graph)
        model.opset_import.extend(self._model.opset_import)
        options = session_options("int8", self._threads)
        return open_graph(model.SerializeToString(), "ort-cpu", options)

    def _is_pending(self, tensor: str) -> bool:
        return any(tensor in node.input for node in self._pending)

    def _drop_read(self) -> None:
        self._live = {name: v for name, v in self._live.items() if self._is_pending(name)}
