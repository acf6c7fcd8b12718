"""Turns an int8 graph into one whose remainder computes in half, for strongly typed builders.

TensorRT 11 and TensorRT-RTX take precision from the graph alone, so everything that is not int8
must say float16 itself: scales, biases, the head and the additions. Input and output stay float32.
QuantizeLinear and DequantizeLinear know float16 since operator set 19.

A scale s does not survive as it is: half has 11 bits and nothing below 2⁻²⁴. With h = half(s), not
less than 2⁻²⁴ and never rounded down where bits are lost, a stored weight becomes round(q·s/h): the
same integers wherever h is a normal number, and a positive scale where s alone would vanish.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError

_OPSET, _IR_VERSION = 19, 9
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


def halve_quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert what is float in a Q/DQ graph to half; changes and returns `model`.

    Raises:
        GraphError: a constant or a quantized activation lies beyond ±65504.
    """
    graph = model.graph
    scales = {
        node.input[1]: node.input[0]
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if tensor.name in scales:
            halved = half_scale(values)
            stored = constants.get(scales[tensor.name])
            if stored is None:
                _check_fits(tensor.name, values * 127)
            elif stored.data_type == TensorProto.INT8:
                _rescale_stored(stored, values, halved)
        else:
            _check_fits(tensor.name, values)
            halved = values.astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))
    _halve_constant_nodes(graph)
    _cast_interface(graph)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, _OPSET)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return model


def half_scale(scale: Float32s) -> npt.NDArray[np.float16]:
    """The half nearest to each scale; below the normal numbers the next one up, at least 2⁻²⁴."""
    nearest = np.maximum(scale, np.float32(_SMALLEST)).astype(np.float16)
    short = (scale < _SMALLEST_NORMAL) & (nearest.astype(np.float32) < scale)
    return np.where(short, np.nextafter(nearest, np.float16(1)), nearest)


def _rescale_stored(stored: TensorProto, scale: Float32s, halved: npt.NDArray[np.float16]) -> None:
    values = numpy_helper.to_array(stored)
    ratio = (scale.astype(np.float64) / halved).reshape(-1, *[1] * (values.ndim - 1))
    rescaled = np.rint(values * ratio).clip(-128, 127).astype(np.int8)
    stored.CopyFrom(numpy_helper.from_array(rescaled, stored.name))


def _check_fits(name: str, values: Float32s) -> None:
    peak = float(np.abs(values).max(initial=0.0))
    if peak > _LARGEST:
        raise GraphError(
            f"{name!r} reaches {peak:.4g}, half ends at {_LARGEST:.0f}: "
            "use int8.onnx, whose remainder is float32"
        )


def _halve_constant_nodes(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(attribute.t).astype(np.float16)
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _cast_interface(graph: onnx.GraphProto) -> None:
    (source,) = graph.input
    inner = {value.name: f"{value.name}_half" for value in (source, *graph.output)}
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            node.input[index] = inner.get(tensor, tensor)
        for index, tensor in enumerate(node.output):
            node.output[index] = inner.get(tensor, tensor)
    first = helper.make_node(
        "Cast", [source.name], [inner[source.name]], "input_to_half", to=TensorProto.FLOAT16
    )
    last = [
        helper.make_node("Cast", [inner[name]], [name], f"{name}_to_float", to=TensorProto.FLOAT)
        for name in (result.name for result in graph.output)
    ]
    nodes = [first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
