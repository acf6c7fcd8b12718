"""Writes an int8 graph in half (`qdq_half`) as a float32 graph that gives the same bits on a CPU.

ONNX Runtime's CPU kernels quantize half one value at a time, which takes four times as long as all
the rest. What they compute of such a graph is float32 but for three roundings:

    Q(half(x))     of every activation x that is quantized
    half(s·q)      of every stored weight
    half(c)        of every other constant

Clip and Relu do not mind whether the rounding comes before or after them, for it never changes an
order and keeps their bounds. Other networks, or another ONNX Runtime, may round elsewhere: whoever
runs the float32 graph for the other one's figures compares both (see `accuracy`).
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from resdeploy.deploy.arrays import Float32s


def half_in_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 graph of a graph that `halve_quantized` made; `model` is left as it is."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    copy = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    copy.graph.name = model.graph.name
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            weight = _weight(node, constants)
            copy.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        else:
            copy.graph.node.extend(_in_float(node))
    read = {name for node in copy.graph.node for name in node.input}
    copy.graph.initializer.extend(_widened(constants[name]) for name in constants if name in read)
    return copy


def _weight(node: NodeProto, constants: dict[str, TensorProto]) -> Float32s:
    """half(s·q), the scale along the first axis."""
    integers, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
    factor = scale.astype(np.float32).reshape(-1, *[1] * (integers.ndim - 1))
    return (integers * factor).astype(np.float16).astype(np.float32)


def _in_float(node: NodeProto) -> Iterator[NodeProto]:
    """The node in float32, with a rounding to half in front of a QuantizeLinear."""
    copy = NodeProto()
    copy.CopyFrom(node)
    if node.op_type == "Cast":
        copy.attribute[0].i = TensorProto.FLOAT
    for attribute in copy.attribute:
        if attribute.name == "value":
            attribute.t.CopyFrom(_widened(attribute.t))
    if node.op_type == "QuantizeLinear":
        source, half, rounded = node.input[0], f"{node.name}.half", f"{node.name}.rounded"
        yield helper.make_node("Cast", [source], [half], half, to=TensorProto.FLOAT16)
        yield helper.make_node("Cast", [half], [rounded], rounded, to=TensorProto.FLOAT)
        copy.input[0] = rounded
    yield copy


def _widened(tensor: TensorProto) -> TensorProto:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
