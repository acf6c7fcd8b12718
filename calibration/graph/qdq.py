"""Writes a quantization plan into the graph: QuantizeLinear/DequantizeLinear pairs for a target.

An activation x becomes DQ(Q(x)) in front of the readers that the plan names; a weight becomes its
int8 values behind a DequantizeLinear with one scale per output channel. The targets differ in:

    tensorrt   symmetric int8 activations, zero points 0, float biases; operator set as is. Its
               second file has everything else in half (see `qdq_half`), operator set 19
    cpu        uint8 activations with zero points; biases int32 with scale s_x·s_w, which ONNX
               Runtime needs to run a convolution in integers
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from resdeploy.calibration.graph.placement import QuantPlan
from resdeploy.calibration.graph.qdq_half import halve_quantized
from resdeploy.calibration.graph.topology import Wiring, wire
from resdeploy.calibration.ranges.ranges import (
    LARGEST_INT8,
    Range,
    affine_uint8,
    check_covers,
    symmetric_scale,
)
from resdeploy.deploy.arrays import Float32s

# Largest |bias / (s_x·s_w)|: half of int32, so that accumulating onto it cannot overflow.
_LARGEST_INT8_BIAS = 2.0**30


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as W ≈ scale·values: int8 values of W's shape, float32 scale (C_out,) on axis 0."""

    values: npt.NDArray[np.int8]
    scale: Float32s

    def per_channel(self) -> Float32s:
        """The scale, shaped to multiply `values`: (C_out, 1, 1, 1) for a convolution."""
        return self.scale.reshape(-1, *[1] * (self.values.ndim - 1))

    def dequantize(self) -> Float32s:
        """scale·values, float32, of W's shape."""
        return np.asarray(self.values * self.per_channel(), np.float32)


def round_to_nearest(weight: Float32s) -> QuantizedWeight:
    """Symmetric rounding per output channel (axis 0), scale = max|w| / 127.

    A channel of zeros has the scale 1.
    """
    peak = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.where(peak > 0, peak / LARGEST_INT8, 1.0).astype(np.float32)
    values = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    return QuantizedWeight(values.clip(-LARGEST_INT8, LARGEST_INT8).astype(np.int8), scale)


def insert_qdq(
    model: onnx.ModelProto,
    plan: QuantPlan,
    ranges: Mapping[str, Range],
    weights: Mapping[str, QuantizedWeight],
    biases: Mapping[str, Float32s],
    *,
    floats: Mapping[str, Float32s] | None = None,
    half: bool = False,
    float_weights: bool = False,
) -> onnx.ModelProto:
    """Build the quantized graph for the plan's target; `model` is left as it is.

    Args:
        ranges: activation tensor → range, at least for every tensor of the plan that leads.
        weights: weight initializer → its integers; one not given is rounded to nearest (8 bits).
        biases: node name → new bias (C_out,), for nodes whose bias changes (or had none).
        floats: weight of a layer that stays float → its new values.
        half: the remainder computes in half, for strongly typed builders.
        float_weights: keep weights float (on the integer grid) behind Q and DQ, as TensorRT
            before 10 reads them, instead of storing int8.

    Raises:
        CalibrationError: a tensor of the plan has no range.
        ValueError: weights of another graph, or a form that the target does not have.
    """
    _check_form(plan, weights, half=half, float_weights=float_weights)
    leaders = tuple(plan.same_range.get(tensor, tensor) for tensor in plan.activations)
    check_covers(ranges, leaders, "the calibration")
    building = _QdqGraph(plan, wire(model), weights, biases, float_weights)
    for name, values in (floats or {}).items():
        building.constant(name, values)
    grids = dict(zip(plan.activations, (ranges[leader] for leader in leaders), strict=True))
    for tensor in building.wiring.inputs:
        _quantize_activation(building, tensor, grids)
    for node in model.graph.node:
        building.nodes.append(_rewire(building, node))
        for tensor in node.output:
            _quantize_activation(building, tensor, grids)
    return _assemble(model, building, half=half)


def _check_form(
    plan: QuantPlan, weights: Mapping[str, QuantizedWeight], *, half: bool, float_weights: bool
) -> None:
    if half and (float_weights or plan.target.half_variant is None):
        raise ValueError(f"no half for {plan.target.name} with these weights")
    if float_weights and plan.target.integer_bias:
        raise ValueError(f"float weights cannot be written for {plan.target.name}")
    unknown = set(weights) - set(plan.weights)
    if unknown:
        raise ValueError(f"weight {min(unknown)!r} is not quantized by the plan")


@dataclass
class _QdqGraph:
    """The new nodes and initializers so far; `scales` holds each quantized activation's scale."""

    plan: QuantPlan
    wiring: Wiring
    weights: Mapping[str, QuantizedWeight]
    biases: Mapping[str, Float32s]
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
        for op_type, read, result, node_name in (
            ("QuantizeLinear", source, quantized, f"{name}.quantize"),
            ("DequantizeLinear", quantized, dequantized, f"{name}.dequantize"),
        ):
            node = helper.make_node(op_type, [read, scale, zero_point], [result], node_name)
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


def _quantize_activation(building: _QdqGraph, tensor: str, grids: Mapping[str, Range]) -> None:
    if tensor not in grids:
        return
    if building.plan.target.grid == "uint8":
        scale, zero = affine_uint8(grids[tensor])
        zero_point = np.array(zero, np.uint8)
    else:
        scale, zero_point = symmetric_scale(grids[tensor]), np.array(0, np.int8)
    building.scales[tensor] = scale
    scale_name = building.constant(f"{tensor}_scale", np.array(scale))
    zero_name = building.constant(f"{tensor}_zero_point", zero_point)
    building.pair(tensor, tensor, scale_name, zero_name, None)


def _rewire(building: _QdqGraph, node: NodeProto) -> NodeProto:
    """A copy of the node that reads the dequantized tensors the plan gives it."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for index, tensor in enumerate(node.input):
        if (node.name, index) in building.plan.edges and tensor in building.scales:
            copy.input[index] = f"{tensor}_dequantized"
    if (node.name, 1) in building.plan.edges and node.input[1] in building.plan.weights:
        _rewire_weighted(building, copy)
    elif node.name in building.biases:
        _set_bias(copy, building.constant(f"{node.name}_bias", building.biases[node.name]))
    return copy


def _rewire_weighted(building: _QdqGraph, node: NodeProto) -> None:
    name = node.input[1]
    weight = building.weights.get(name)
    if weight is None:
        weight = round_to_nearest(numpy_helper.to_array(building.wiring.constants[name]))
    if building.plan.target.integer_bias:
        input_scale = building.scales[node.input[0].removesuffix("_dequantized")]
        bias = _bias(building, node, len(weight.scale))
        weight = _widen_for_bias(weight, bias, input_scale)
        bias_scale = building.constant(f"{node.name}_bias_scale", weight.scale * input_scale)
        integers = np.rint(bias / (weight.scale.astype(np.float64) * input_scale)).astype(np.int32)
        _set_bias(node, building.dequantize(f"{node.name}_bias", integers, bias_scale))
    elif node.name in building.biases:
        _set_bias(node, building.constant(f"{node.name}_bias", building.biases[node.name]))
    scale = building.constant(f"{name}_scale", weight.scale)
    if building.float_weights:
        zero = building.constant(f"{name}_zero_point", np.zeros(len(weight.scale), np.int8))
        building.pair(building.constant(name, weight.dequantize()), name, scale, zero, 0)
        node.input[1] = f"{name}_dequantized"
    else:
        node.input[1] = building.dequantize(name, weight.values, scale)


def _bias(building: _QdqGraph, node: NodeProto, channels: int) -> Float32s:
    if node.name in building.biases:
        return building.biases[node.name]
    if len(node.input) > 2 and node.input[2]:
        return numpy_helper.to_array(building.wiring.constants[node.input[2]])
    return np.zeros(channels, np.float32)


def _set_bias(node: NodeProto, tensor: str) -> None:
    del node.input[2:]
    node.input.append(tensor)


def _widen_for_bias(
    weight: QuantizedWeight, bias: Float32s, input_scale: np.float32
) -> QuantizedWeight:
    """Coarser scales for channels of tiny weights, whose bias would not fit into int32 otherwise.

    Such channels (dead ones, in a trained MobileNetV2) are all bias: their weights hardly count.
    """
    smallest = np.abs(bias) / (_LARGEST_INT8_BIAS * float(input_scale))
    scale = np.maximum(weight.scale, smallest.astype(np.float32))
    return weight if np.array_equal(scale, weight.scale) else rescale(weight, scale)


def rescale(weight: QuantizedWeight, scale: Float32s) -> QuantizedWeight:
    """The same weight on another grid: values rounded to nearest under `scale` (C_out,)."""
    ratio = (weight.scale.astype(np.float64) / scale).reshape(weight.per_channel().shape)
    values = np.rint(weight.values * ratio).clip(-128, 127).astype(np.int8)
    return QuantizedWeight(values, scale)


def _assemble(model: onnx.ModelProto, building: _QdqGraph, *, half: bool) -> onnx.ModelProto:
    """The model around the new nodes: unused initializers left out, old ones before new ones."""
    used = {tensor for node in building.nodes for tensor in node.input}
    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.node.extend(building.nodes)
    graph.initializer.extend(
        tensor
        for tensor in model.graph.initializer
        if tensor.name in used and tensor.name not in building.initializers
    )
    graph.initializer.extend(building.initializers.values())
    result = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        graph=graph,
    )
    result.opset_import.extend(model.opset_import)
    result.metadata_props.extend(model.metadata_props)
    return halve_quantized(result) if half else result
