"""Extracts, inside the graph, the part of a tensor that its accumulators need.

    whole      x itself
    sample     x[:, :, ::k, ::k], by a MaxPool over single values with stride k
    extremes   the channels' largest values, by GlobalMaxPool, and 0 for the smallest one

A tensor that comes whole for one of its accumulators comes whole for all of them.

Both poolings run on the blocked layout that ONNX Runtime keeps between convolutions, so the tensor
need not be brought into the plain layout, which is what costs most. The pooled extremes are for
tensors behind Relu or Clip at 0, whose smallest value is 0, reached or not: every grid holds it
anyway. Others come whole for want of a GlobalMinPool: taking the maximum of −x costs more than
carrying x out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from resdeploy.calibration.graph.topology import wire
from resdeploy.calibration.ranges.observers import sampling_step
from resdeploy.deploy.arrays import Float32s

Need = Literal["whole", "sample", "extremes"]


@dataclass(frozen=True)
class Tap:
    """A part of a tensor, and the graph output that holds it."""

    need: Need
    output: str

    def assemble(self, values: Float32s) -> Float32s:
        """The part of one batch, (N, …), from the value of its output."""
        if self.need != "extremes":
            return values
        return np.concatenate([values, np.zeros_like(values[:, :1])], axis=1)


def add_taps(
    model: onnx.ModelProto, wanted: Sequence[tuple[str, Need]]
) -> tuple[onnx.ModelProto, list[Tap]]:
    """A copy of the graph whose outputs are the wanted taps need, and the taps in order.

    A tensor that is not (N, C, H, W) is taken whole: it is small.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    shapes = _image_shapes(model)
    carried = _carried_whole(wanted, _never_negative(model) & shapes.keys())
    nodes: list[NodeProto] = []
    taps = []
    for tensor, need in wanted:
        step = sampling_step((1, *shapes[tensor])) if tensor in shapes else 1
        if tensor in carried or (need == "sample" and step == 1):
            taps.append(Tap("whole", tensor))
            continue
        if need == "sample":
            strides = {"kernel_shape": [1, 1], "strides": [step, step]}
            nodes.append(_pool("MaxPool", tensor, f"{tensor}.sample", strides))
        else:
            nodes.append(_pool("GlobalMaxPool", tensor, f"{tensor}.high", {}))
        taps.append(Tap(need, nodes[-1].output[0]))
    # Backwards: ONNX Runtime numbers nodes anew from the end of the graph when it brings them into
    # the blocked layout. So each pooling comes to follow its tensor at once, which is freed then.
    tapped.graph.node.extend(reversed(nodes))
    inputs = {value.name for value in model.graph.input}
    del tapped.graph.output[:]
    tapped.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in dict.fromkeys(tap.output for tap in taps)
        if name not in inputs
    )
    if not tapped.graph.output:  # only the input is looked at; a graph must have an output
        tapped.graph.output.extend(model.graph.output)
    return tapped, taps


def _carried_whole(wanted: Sequence[tuple[str, Need]], pooled: Collection[str]) -> set[str]:
    """Tensors that come whole for somebody, and so for all; extremes only of `pooled` ones."""
    return {
        tensor
        for tensor, need in wanted
        if need == "whole" or (need == "extremes" and tensor not in pooled)
    }


def _pool(
    op_type: str, source: str, result: str, attributes: Mapping[str, Sequence[int]]
) -> NodeProto:
    node = helper.make_node(op_type, [source], [result], result)
    node.attribute.extend(helper.make_attribute(k, values) for k, values in attributes.items())
    return node


def _image_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, int, int]]:
    """Tensor → (C, H, W) for every tensor (N, C, H, W) of known size."""
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    shapes = {}
    for value in (*model.graph.input, *inferred.value_info, *inferred.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(sizes) == 4 and all(size > 0 for size in sizes[1:]):
            shapes[value.name] = (sizes[1], sizes[2], sizes[3])
    return shapes


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its initializers as inputs: their values cost most of inferring shapes."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        light.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return light


def _never_negative(model: onnx.ModelProto) -> set[str]:
    wiring = wire(model)
    found = set()
    for node in wiring.nodes:
        if node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in wiring.constants:
            if numpy_helper.to_array(wiring.constants[node.input[1]]).item() != 0:
                continue
        elif node.op_type == "MaxPool" and node.input[0] in found:
            pass
        elif node.op_type != "Relu":
            continue
        found.add(node.output[0])
    return found
