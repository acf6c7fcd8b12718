"""Takes the middle of an activation's range out of it, so that a symmetric grid is used whole.

After ReLU6 values lie in [0, 6], and of a symmetric int8 grid only 0…127 is ever used. With the
constant c = h/2, h the upper end of the range:

    x' = x − c ∈ [−c, h − c]       b₁' = b₁ − c       f' = Clip(−c, 6 − c), from ReLU Clip(−c, ∞)
    W₂·x + b₂ = W₂·x' + b₂'        b₂' = b₂ + c·Σ W₂

one more bit for the same integers, and zero points stay 0, which TensorRT asks for. It is the
high-bias absorption of Nagel et al. 2019 (section 4.1.3), exact for every input instead of for
activations above c, because the nonlinearity moves along.

c is a little more than h/2, so that float16 holds the scale c/127: the zeros that ReLU leaves, now
−c, then lie on the grid of int8-fp16.onnx, too. Their rounding would be multiplied by Σ W₂.

Padding means x = 0, which is x' = −c and not 0: a layer that pads is only served when it is named,
and then reads the tensor through a Pad node of that value.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from resdeploy.calibration.graph.layers import Layer, constants, layers, with_constants
from resdeploy.calibration.graph.topology import Wiring, wire
from resdeploy.calibration.ranges.ranges import LARGEST_INT8, Range, half_above
from resdeploy.deploy.arrays import Float32s


@dataclass(frozen=True)
class Centred:
    """The graph, the ranges of its tensors, and what was taken out of each centred tensor."""

    model: onnx.ModelProto
    ranges: dict[str, Range]
    centres: dict[str, float]


def centre(
    model: onnx.ModelProto, ranges: Mapping[str, Range], *, padded: Collection[str] = ()
) -> Centred:
    """Centre every tensor that allows it (see the module's docstring).

    Args:
        ranges: tensor → range; tensors without one are left alone.
        padded: names of layers with padding whose input is centred too, behind a Pad node.
    """
    wiring = wire(model)
    found = layers(model)
    values = constants(model)
    changed: dict[str, Float32s] = {}
    centres: dict[str, float] = {}
    for tensor, spread in ranges.items():
        writer = _writer(wiring, found, tensor)
        readers = _readers(wiring, found, tensor, padded)
        if writer is None or not readers or spread.high <= 0:
            continue
        c = centres[tensor] = LARGEST_INT8 * half_above(spread.high / 2 / LARGEST_INT8)
        changed[writer.bias] = changed.get(writer.bias, values[writer.bias]) - np.float32(c)
        for layer in readers:
            rows = values[layer.weight].reshape(layer.shape[0], -1).sum(axis=1, dtype=np.float64)
            bias = changed.get(layer.bias, values[layer.bias])
            changed[layer.bias] = (bias + c * rows).astype(np.float32)
    moved = with_constants(model, changed)
    padded_tensors = _rewrite_nodes(moved, wiring, centres, set(padded))
    shifted = dict(ranges)
    for tensor, c in centres.items():
        low, high = max(ranges[tensor].low, 0.0), ranges[tensor].high
        shifted[tensor] = Range(low - c, high - c)
    for name, source in padded_tensors.items():
        shifted[name] = Range(-centres[source], shifted[source].high)
        centres[name] = centres[source]
    return Centred(moved, shifted, centres)


def _writer(wiring: Wiring, found: tuple[Layer, ...], tensor: str) -> Layer | None:
    """The layer with a bias whose output goes through one ReLU or ReLU6 into `tensor` only."""
    activation = wiring.producer.get(tensor)
    if activation is None or activation.op_type not in ("Relu", "Clip"):
        return None
    if activation.op_type == "Clip" and _bound(wiring, activation, 1) != 0:
        return None
    source = activation.input[0]
    if wiring.sole_consumer(source) is None:
        return None
    return next((layer for layer in found if layer.output == source and layer.bias), None)


def _readers(
    wiring: Wiring, found: tuple[Layer, ...], tensor: str, padded: Collection[str]
) -> list[Layer]:
    """The layers that read the tensor, empty when anything else does or one pads unasked."""
    by_name = {layer.name: layer for layer in found}
    readers = []
    for node, index in wiring.consumers.get(tensor, ()):
        layer = by_name.get(node.name)
        if layer is None or index != 0 or not layer.bias:
            return []
        if any(layer.pads) and layer.name not in padded:
            return []
        readers.append(layer)
    return [] if tensor in wiring.outputs else readers


def _bound(wiring: Wiring, node: NodeProto, index: int) -> float | None:
    name = node.input[index] if len(node.input) > index else ""
    return float(numpy_helper.to_array(wiring.constants[name])) if name else None


def _rewrite_nodes(
    model: onnx.ModelProto, wiring: Wiring, centres: Mapping[str, float], padded: set[str]
) -> dict[str, str]:
    """Move the bounds of the activations and put Pad nodes in front of the padded layers.

    Returns the tensors the Pad nodes write and what each was made from.
    """
    nodes: list[NodeProto] = []
    sources: dict[str, str] = {}
    for node in model.graph.node:
        if node.output[0] in centres and node.op_type in ("Relu", "Clip"):
            _move_bounds(model, wiring, node, centres[node.output[0]])
        if node.name in padded and node.input[0] in centres:
            source = node.input[0]
            nodes.append(_pad_before(model, node, centres[source]))
            sources[node.input[0]] = source
        nodes.append(node)
    ordered = [_copy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    return sources


def _move_bounds(model: onnx.ModelProto, wiring: Wiring, node: NodeProto, c: float) -> None:
    high = _bound(wiring, node, 2) if node.op_type == "Clip" else None
    names = [_scalar(model, f"{node.name}_low", -c)]
    if high is not None:
        names.append(_scalar(model, f"{node.name}_high", high - c))
    node.op_type = "Clip"
    del node.input[1:]
    node.input.extend(names)


def _pad_before(model: onnx.ModelProto, node: NodeProto, c: float) -> NodeProto:
    """A Pad node with the padding of `node`, which gives its own up."""
    (pads,) = [a for a in node.attribute if a.name == "pads"]
    top, left, bottom, right = pads.ints
    amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    name = f"{node.name}_pads"
    model.graph.initializer.append(numpy_helper.from_array(amounts, name))
    value = _scalar(model, f"{node.name}_pad_value", -c)
    padded = f"{node.input[0]}_padded"
    pad = helper.make_node("Pad", [node.input[0], name, value], [padded], f"{node.name}.pad")
    node.input[0] = padded
    pads.ints[:] = [0, 0, 0, 0]
    return pad


def _scalar(model: onnx.ModelProto, name: str, value: float) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    return name


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
