"""Who produces and who reads each tensor of a float ONNX graph, and whether it may be quantized."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto

from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph.onnx_file import opset

# Per-channel QuantizeLinear (its `axis` attribute) exists since operator set 13.
_OLDEST_OPSET = 13
# Share of the weights in MatMul nodes, which stay float, above which INT8 is not worth it.
_MOST_IN_PRODUCTS = 0.5
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QGemm")


@dataclass(frozen=True)
class Wiring:
    """The graph as maps: tensor → producing node, tensor → (reading node, input index) pairs."""

    nodes: tuple[NodeProto, ...]
    producer: Mapping[str, NodeProto]
    consumers: Mapping[str, tuple[tuple[NodeProto, int], ...]]
    constants: Mapping[str, TensorProto]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def sole_consumer(self, tensor: str) -> NodeProto | None:
        """The one node that reads `tensor`, None when there are several or it leaves the graph."""
        readers = self.consumers.get(tensor, ())
        return readers[0][0] if len(readers) == 1 and tensor not in self.outputs else None


def wire(model: onnx.ModelProto) -> Wiring:
    """Index the graph; a Constant node counts as a constant like an initializer."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    consumers: dict[str, list[tuple[NodeProto, int]]] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = attribute.t
            continue
        nodes.append(node)
        for index, tensor in enumerate(node.input):
            if tensor:
                consumers.setdefault(tensor, []).append((node, index))
    return Wiring(
        nodes=tuple(nodes),
        producer={tensor: node for node in nodes for tensor in node.output},
        consumers={tensor: tuple(readers) for tensor, readers in consumers.items()},
        constants=constants,
        inputs=tuple(v.name for v in graph.input if v.name not in constants),
        outputs=tuple(v.name for v in graph.output),
    )


def check_quantizable(model: onnx.ModelProto) -> None:
    """Refuse a graph that calibration cannot treat as one of resdeploy's own float graphs.

    Raises:
        GraphError: already quantized, operator set below 13, a batch normalization left that could
            be folded, not one float32 image input, no convolution or most weights in matrix
            products, or nodes without a name of their own.
    """
    operators = Counter(node.op_type for node in model.graph.node)
    present = [name for name in _QUANTIZED if operators[name]]
    if present:
        raise GraphError(
            f"the graph is quantized already ({operators[present[0]]} {present[0]} nodes): "
            "quantize the float graph fp32.onnx of the bundle instead"
        )
    if opset(model) < _OLDEST_OPSET:
        raise GraphError(
            f"the graph uses operator set {opset(model)}, per-channel quantization needs "
            f"{_OLDEST_OPSET} or newer: export the checkpoint again with resdeploy export"
        )
    unfolded = _unfolded(wire(model))
    if unfolded:
        raise GraphError(
            f"{unfolded} batch normalizations are not folded into their "
            "convolutions: export the checkpoint again with resdeploy export"
        )
    if not operators["Conv"]:
        raise GraphError("the graph has no convolution: there is nothing to quantize")
    _check_worth(model)
    _check_interface(model)
    _check_names(model)


def _check_worth(model: onnx.ModelProto) -> None:
    """Refuse networks of another kind, whose weights are mostly those of MatMul nodes."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    products = sum(
        sizes.get(name, 0)
        for node in model.graph.node
        if node.op_type == "MatMul"
        for name in node.input
    )
    share = products / sum(sizes.values())
    if share > _MOST_IN_PRODUCTS:
        raise GraphError(
            f"{share:.0%} of the weights are in matrix products (MatMul), of which none would be "
            "quantized: INT8 gains little here, use fp16"
        )


def _unfolded(wiring: Wiring) -> int:
    """Batch normalizations that alone read a convolution. Others, such as those that lead the
    blocks of a pre-activation ResNet, cannot be folded and stay in float."""
    found = 0
    for node in wiring.nodes:
        if node.op_type == "BatchNormalization":
            source = wiring.producer.get(node.input[0])
            alone = wiring.sole_consumer(node.input[0]) is not None
            found += source is not None and source.op_type == "Conv" and alone
    return found


def _check_interface(model: onnx.ModelProto) -> None:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in initializers]
    outputs = [len(value.type.tensor_type.shape.dim) for value in model.graph.output]
    if len(inputs) != 1 or (len(outputs) != 1 and set(outputs) != {4}):
        raise GraphError(
            f"the graph has {len(inputs)} inputs and {len(outputs)} outputs, expected one of "
            "each, or several feature maps: only image classifiers and backbones can be quantized"
        )
    tensor_type = inputs[0].type.tensor_type
    if tensor_type.elem_type != TensorProto.FLOAT or len(tensor_type.shape.dim) != 4:
        dtype = TensorProto.DataType.Name(tensor_type.elem_type).lower()
        raise GraphError(
            f"input {inputs[0].name!r} is {dtype} with {len(tensor_type.shape.dim)} axes, "
            "expected float (N, 3, H, W): quantize the float graph fp32.onnx of the bundle"
        )


def _check_names(model: onnx.ModelProto) -> None:
    names = Counter(node.name for node in model.graph.node if node.op_type != "Constant")
    wrong = next((name for name, times in names.items() if not name or times > 1), None)
    if wrong is not None:
        raise GraphError(
            f"{names[wrong]} nodes are called {wrong!r}, every node needs a name of its own: "
            "export the checkpoint again with resdeploy export"
        )
