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

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def half_in_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 graph of a graph that `halve_quantized` made; `model` is left as it is."""
    stored = {tensor.name for tensor in model.graph.initializer}
    copy = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    copy.graph.name = model.graph.name
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    for node in model.graph.node:
        copy.graph.node.extend(_in_float(node, stored))
    copy.graph.initializer.extend(_widened(tensor) for tensor in model.graph.initializer)
    return copy


def _in_float(node: NodeProto, stored: Collection[str]) -> Iterator[NodeProto]:
    """The node in float32; what it quantizes, or a weight that it makes, is rounded to half."""
    copy = NodeProto()
    copy.CopyFrom(node)
    if node.op_type == "Cast":
        copy.attribute[0].i = TensorProto.FLOAT
    for attribute in copy.attribute:
        if attribute.name == "value":
            attribute.t.CopyFrom(_widened(attribute.t))
    if node.op_type == "QuantizeLinear":
        copy.input[0] = f"{node.name}.rounded"
        yield from _rounding(node.input[0], copy.input[0])
        yield copy
    elif node.op_type == "DequantizeLinear" and node.input[0] in stored:
        copy.output[0] = f"{node.name}.wide"
        yield copy
        yield from _rounding(copy.output[0], node.output[0])
    else:
        yield copy


def _rounding(source: str, result: str) -> Iterator[NodeProto]:
    half = f"{result}.half"
    yield helper.make_node("Cast", [source], [half], half, to=TensorProto.FLOAT16)
    yield helper.make_node("Cast", [half], [result], f"{result}.float", to=TensorProto.FLOAT)


def _widened(tensor: TensorProto) -> TensorProto:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
