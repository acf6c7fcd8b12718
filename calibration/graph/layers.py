"""The weighted layers of a float graph, and the matrix product that each of them is.

With the patch u of an input under the kernel, unfolded to K = C_in/group · kh · kw numbers in the
order of the weight's own axes, a convolution computes y = W·u + b at every position, one W of
(C_out/group, K) per group. A Gemm is a convolution of one position. Everything that improves
weights (rounding, bias correction) works on this form.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from resdeploy.calibration.graph.topology import wire
from resdeploy.deploy.arrays import Float32s, Float64s, Floats

# Values up to which a weight is worked on in float64. VGG's first Gemm would take 0.8 GB, several
# times over, and nothing but plain rounding is done with weights so wide.
_WIDENED = 1 << 25


@dataclass(frozen=True)
class Layer:
    """A Conv, or a Gemm whose weight has the output channels first, with constant weights.

    name: of the node. input, output, weight, bias: tensor names; bias is "" where there is none.
    shape: (C_out, C_in / group, kh, kw). pads: top, left, bottom, right.
    """

    name: str
    op_type: str
    input: str
    output: str
    weight: str
    bias: str
    shape: tuple[int, int, int, int]
    group: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    @property
    def columns(self) -> int:
        """K, the numbers in one unfolded patch of one group."""
        return math.prod(self.shape[1:])

    @property
    def depthwise(self) -> bool:
        """One input channel per group and one output channel from it."""
        return self.shape[1] == 1 and 1 < self.group == self.shape[0]

    def rows(self, weight: Floats) -> Floats:
        """The weight as (group, C_out / group, K) float64; as it is where that takes too much."""
        rows = weight.reshape(self.group, -1, self.columns)
        return rows.astype(np.float64) if rows.size <= _WIDENED else rows


def layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Every Conv and Gemm with a constant weight, in graph order."""
    wiring = wire(model)
    return tuple(
        _layer(node, wiring.constants)
        for node in wiring.nodes
        if (node.op_type == "Conv" or is_product(node)) and node.input[1] in wiring.constants
    )


def is_product(node: NodeProto) -> bool:
    """Whether the node is a Gemm of the form x·Wᵀ + b."""
    plain = {"transB": 1, "transA": 0, "alpha": 1.0, "beta": 1.0}
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return node.op_type == "Gemm" and {**plain, "transB": 0, **given} == plain


def constants(model: onnx.ModelProto) -> dict[str, Float32s]:
    """Every float initializer by name."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def with_constants(model: onnx.ModelProto, changed: Mapping[str, Float32s]) -> onnx.ModelProto:
    """A copy of the graph with some initializers replaced or added; the rest is shared by value."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    missing = dict(changed)
    for tensor in copy.graph.initializer:
        if tensor.name in missing:
            tensor.CopyFrom(_tensor(missing.pop(tensor.name), tensor.name))
    copy.graph.initializer.extend(_tensor(values, name) for name, values in missing.items())
    return copy


def with_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every layer has a bias of its own, zeros where it had none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    bare = {layer.name: layer for layer in layers(model) if not layer.bias}
    for node in copy.graph.node:
        if node.name in bare:
            name = f"{node.name}.bias"
            del node.input[2:]
            node.input.append(name)
            zeros = np.zeros(bare[node.name].shape[0], np.float32)
            copy.graph.initializer.append(_tensor(zeros, name))
    return copy


def bias_of(layer: Layer, values: Mapping[str, Float32s]) -> Float64s:
    """The layer's bias (C_out,) as float64, zeros where it has none."""
    if not layer.bias:
        return np.zeros(layer.shape[0])
    return values[layer.bias].astype(np.float64)


def _tensor(values: Float32s, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)


def _layer(node: NodeProto, known: Mapping[str, onnx.TensorProto]) -> Layer:
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    out, channels, *kernel = known[node.input[1]].dims
    height, width = kernel or (1, 1)
    return Layer(
        name=node.name,
        op_type=node.op_type,
        input=node.input[0],
        output=node.output[0],
        weight=node.input[1],
        bias=node.input[2] if len(node.input) > 2 else "",
        shape=(out, channels, height, width),
        group=given.get("group", 1),
        strides=tuple(given.get("strides", (1, 1))),
        pads=tuple(given.get("pads", (0, 0, 0, 0))),
        dilations=tuple(given.get("dilations", (1, 1))),
    )
