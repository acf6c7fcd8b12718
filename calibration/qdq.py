"""Writes a quantization plan into the graph: QuantizeLinear/DequantizeLinear pairs per target.

An activation x becomes DQ(Q(x)) in front of the readers that the plan names; a weight becomes its
int8 values behind a DequantizeLinear with one scale per output channel. The targets differ in:

    tensorrt        symmetric int8 activations, zero points 0, float biases; operator set as is
    tensorrt-fp16   the same, everything else in half (see `qdq_half`), operator set 19
    cpu             uint8 activations with zero points; biases int32 with scale s_x·s_w, which ONNX
                    Runtime needs to run a convolution in integers
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from resdeploy.calibration.plan import QuantPlan
from resdeploy.calibration.qdq_half import halve_quantized
from resdeploy.calibration.ranges import Range, affine_uint8, check_covers, symmetric_scale
from resdeploy.calibration.wiring import Wiring, wire

QdqTarget = Literal["tensorrt", "tensorrt-fp16", "cpu"]

# Largest |bias / (s_x·s_w)|: half of int32, so that accumulating onto it cannot overflow.
_LARGEST_BIAS = 2.0**30


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as W ≈ scale·values: int8 values of W's shape, float32 scale (C_out,) on axis 0.

    `bits` is 8 or 7; 7 keeps |values| ≤ 64, which x86 kernels without VNNI add without saturating.
    """

    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bits: int = 8

    def per_channel(self) -> npt.NDArray[np.float32]:
        """The scale, shaped to multiply `values`: (C_out, 1, 1, 1) for a convolution."""
        return self.scale.reshape(-1, *[1] * (self.values.ndim - 1))

    def dequantize(self) -> npt.NDArray[np.float32]:
        """scale·values, float32, of W's shape."""
        return self.values.astype(np.float32) * self.per_channel()


def round_to_nearest(weight: npt.NDArray[np.float32], bits: int = 8) -> QuantizedWeight:
    """Symmetric rounding per output channel (axis 0), scale = max|w| / (2^(bits−1) − 1).

    A channel of zeros has the scale 1.
    """
    largest = 2 ** (bits - 1) - 1
    peak = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.where(peak > 0, peak / largest, 1.0).astype(np.float32)
    values = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    return QuantizedWeight(values.clip(-largest, largest).astype(np.int8), scale, bits)


def insert_qdq(
    model: onnx.ModelProto,
    plan: QuantPlan,
    ranges: Mapping[str, Range],
    weights: Mapping[str, QuantizedWeight],
    biases: Mapping[str, npt.NDArray[np.float32]],
    *,
    target: QdqTarget,
    float_weights: bool = False,
) -> onnx.ModelProto:
    """Build the quantized graph; `model` is left as it is.

    Args:
        ranges: activation tensor → range, at least for every tensor of the plan that leads.
        weights: weight initializer → its integers; one not given is rounded to nearest (8 bits).
        biases: node name → new bias (C_out,), for nodes whose bias changes (or had none).
        float_weights: keep weights float (on the integer grid) behind Q and DQ, as TensorRT
            before 10 reads them, instead of storing int8.

    Raises:
        CalibrationError: a tensor of the plan has no range.
        ValueError: the plan was made for another target, or weights for another graph.
    """
    if (target == "cpu") != (plan.target == "cpu"):
        raise ValueError(f"a plan for {plan.target} cannot be written for {target}")
    if float_weights and target != "tensorrt":
        raise ValueError(f"float weights are for tensorrt only, not for {target}")
    unknown = set(weights) - set(plan.weights)
    if unknown:
        raise ValueError(f"weight {min(unknown)!r} is not quantized by the plan")
    leaders = tuple(plan.same_range.get(tensor, tensor) for tensor in plan.activations)
    check_covers(ranges, leaders, "the calibration")
    wiring = wire(model)
    draft = _Draft(plan, wiring, weights, biases, float_weights)
    grids = dict(zip(plan.activations, (ranges[leader] for leader in leaders), strict=True))
    for tensor in wiring.inputs:
        _quantize_activation(draft, tensor, grids)
    for node in model.graph.node:
        draft.nodes.append(_rewire(draft, node))
        for tensor in node.output:
            _quantize_activation(draft, tensor, grids)
    quantized = _assemble(model, draft)
    return halve_quantized(quantized) if target == "tensorrt-fp16" else quantized


@dataclass
class _Draft:
    """The new nodes and initializers so far; `scales` holds each quantized activation's scale."""

    plan: QuantPlan
    wiring: Wiring
    weights: Mapping[str, QuantizedWeight]
    biases: Mapping[str, npt.NDArray[np.float32]]
    float_weights: bool
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)
    scales: dict[str, np.float32] = field(default_factory=dict)

    def constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self.initializers[name] = numpy_helper.from_array(values, name)
        return name

    def pair(self, source: str, name: str, scale: str, zero_point: str, axis: int | None) -> None:
        """Append Q and DQ from `source` to `{name}_dequantized`, for either kind of tensor."""
        quantized, dequantized = f"{name}_quantized", f"{name}_dequantized"
        for op_type, read, written, node_name in (
            ("QuantizeLinear", source, quantized, f"{name}.quantize"),
            ("DequantizeLinear", quantized, dequantized, f"{name}.dequantize"),
        ):
            node = helper.make_node(op_type, [read, scale, zero_point], [written], node_name)
            if axis is not None:
                node.attribute.append(helper.make_attribute("axis", axis))
            self.nodes.append(node)

    def dequantize(self, name: str, values: npt.NDArray[np.generic], scale: str) -> str:
        """Append a DQ (axis 0, zero point 0) over stored integers; returns its output's name."""
        stored = self.constant(f"{name}_quantized", values)
        zero = self.constant(f"{name}_zero_point", np.zeros(len(values), values.dtype))
        result = f"{name}_dequantized"
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", [stored, scale, zero], [result], f"{name}.dequantize", axis=0
            )
        )
        return result


def _quantize_activation(draft: _Draft, tensor: str, grids: Mapping[str, Range]) -> None:
    if tensor not in grids:
        return
    if draft.plan.target == "cpu":
        scale, zero = affine_uint8(grids[tensor])
        zero_point = np.array(zero, np.uint8)
    else:
        scale, zero_point = symmetric_scale(grids[tensor]), np.array(0, np.int8)
    draft.scales[tensor] = scale
    scale_name = draft.constant(f"{tensor}_scale", np.array(scale))
    zero_name = draft.constant(f"{tensor}_zero_point", zero_point)
    draft.pair(tensor, tensor, scale_name, zero_name, None)


def _rewire(draft: _Draft, node: NodeProto) -> NodeProto:
    """A copy of the node that reads the dequantized tensors the plan gives it."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for index, tensor in enumerate(node.input):
        if (node.name, index) in draft.plan.edges and tensor in draft.scales:
            copy.input[index] = f"{tensor}_dequantized"
    if (node.name, 1) in draft.plan.edges and node.input[1] in draft.plan.weights:
        _rewire_weighted(draft, copy)
    elif node.name in draft.biases:
        _set_bias(copy, draft.constant(f"{node.name}_bias", draft.biases[node.name]))
    return copy


def _rewire_weighted(draft: _Draft, node: NodeProto) -> None:
    name = node.input[1]
    weight = draft.weights.get(name)
    if weight is None:
        weight = round_to_nearest(numpy_helper.to_array(draft.wiring.constants[name]))
    if draft.plan.target == "cpu":
        input_scale = draft.scales[node.input[0].removesuffix("_dequantized")]
        bias = _bias(draft, node, len(weight.scale))
        weight = _widen_for_bias(weight, bias, input_scale)
        bias_scale = draft.constant(f"{node.name}_bias_scale", weight.scale * input_scale)
        integers = np.rint(bias / (weight.scale.astype(np.float64) * input_scale)).astype(np.int32)
        _set_bias(node, draft.dequantize(f"{node.name}_bias", integers, bias_scale))
    elif node.name in draft.biases:
        _set_bias(node, draft.constant(f"{node.name}_bias", draft.biases[node.name]))
    scale = draft.constant(f"{name}_scale", weight.scale)
    if draft.float_weights:
        zero = draft.constant(f"{name}_zero_point", np.zeros(len(weight.scale), np.int8))
        draft.pair(draft.constant(name, weight.dequantize()), name, scale, zero, 0)
        node.input[1] = f"{name}_dequantized"
    else:
        node.input[1] = draft.dequantize(name, weight.values, scale)


def _bias(draft: _Draft, node: NodeProto, channels: int) -> npt.NDArray[np.float32]:
    if node.name in draft.biases:
        return draft.biases[node.name]
    if len(node.input) > 2 and node.input[2]:
        return numpy_helper.to_array(draft.wiring.constants[node.input[2]])
    return np.zeros(channels, np.float32)


def _set_bias(node: NodeProto, tensor: str) -> None:
    del node.input[2:]
    node.input.append(tensor)


def _widen_for_bias(
    weight: QuantizedWeight, bias: npt.NDArray[np.float32], input_scale: np.float32
) -> QuantizedWeight:
    """Coarser scales for channels of tiny weights, whose bias would not fit into int32 otherwise.

    Such channels (dead ones, in a trained MobileNetV2) are all bias: their weights hardly count.
    """
    smallest = np.abs(bias) / (_LARGEST_BIAS * float(input_scale))
    scale = np.maximum(weight.scale, smallest.astype(np.float32))
    return weight if np.array_equal(scale, weight.scale) else rescale(weight, scale)


def rescale(weight: QuantizedWeight, scale: npt.NDArray[np.float32]) -> QuantizedWeight:
    """The same weight on another grid: values rounded to nearest under `scale` (C_out,)."""
    ratio = (weight.scale.astype(np.float64) / scale).reshape(weight.per_channel().shape)
    values = np.rint(weight.values * ratio).clip(-128, 127).astype(np.int8)
    return QuantizedWeight(values, scale, weight.bits)


def _assemble(model: onnx.ModelProto, draft: _Draft) -> onnx.ModelProto:
    """The model around the new nodes: unused initializers left out, old ones before new ones."""
    used = {tensor for node in draft.nodes for tensor in node.input}
    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.node.extend(draft.nodes)
    graph.initializer.extend(
        tensor
        for tensor in model.graph.initializer
        if tensor.name in used and tensor.name not in draft.initializers
    )
    graph.initializer.extend(draft.initializers.values())
    result = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        graph=graph,
    )
    result.opset_import.extend(model.opset_import)
    result.metadata_props.extend(model.metadata_props)
    return result
