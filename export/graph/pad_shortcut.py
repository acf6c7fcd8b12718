"""Writes the parameter-free shortcut of CIFAR ResNets as a convolution.

"Option A" of He et al. 2015 (section 4.2) halves the image and widens the channels without weights:

    y = Pad(x[:, :, ::s, ::s])  with p zero channels before and q after
    y = Conv(x, W, stride = s),  W of shape (p + C + q, C, 1, 1),  W[p + i, i] = 1, all else 0

The two are equal bit for bit on finite inputs: one product is x·1, the others add zeros. As a
convolution the branch fuses with the residual Add in TensorRT and is quantized like any other;
Slice and channel padding would stay a reformatting step of their own in float.
"""

from math import prod

import numpy as np
import onnx_ir as ir

from resdeploy.export.graph.edits import Rewrites

_TO_THE_END = 2**31 - 1  # what exporters write, or more, for an open end


def use_shortcut_convolution(graph: ir.Graph) -> Rewrites:
    """Rewrite in place. Needs inferred shapes on the tensors."""
    count = 0
    declined: dict[str, str] = {}
    for node in [node for node in graph if node.op_type == "Pad"]:
        reason = _why_not_channels(node)
        if reason is None:
            pads = _ints(node, 1)
            _replace(graph, node, _strided_slices(node.inputs[0]), (pads[1], pads[5]))
            count += 1
        else:
            declined[node.name or node.outputs[0].name or "Pad"] = reason
    return Rewrites(count, declined)


def _why_not_channels(node: ir.Node) -> str | None:
    """Why this node does not pad float32 channels alone with zeros, or None if it does."""
    mode = node.attributes.get_string("mode", "constant")
    if mode != "constant":
        return f"pads with the mode {mode!r}, not with zeros"
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        value = node.inputs[2].const_value
        if value is None or value.numpy().any():
            return "pads with a value that is not known to be zero"
    source, pads = node.inputs[0], _ints(node, 1)
    if source is None or source.shape is None or len(source.shape) != 4:
        return "the size of what it reads is not known"
    if len(pads) != 8 or _ints(node, 3):
        return "its paddings are computed, or given for some axes only"
    if min(pads) < 0:
        return "cuts off instead of padding"
    if any(pads[i] for i in (0, 2, 3, 4, 6, 7)):
        return "pads the image, not only the channels"
    if source.dtype != ir.DataType.FLOAT or not isinstance(source.shape[1], int):
        return "what it reads is not float32 with a known number of channels"
    return None


def _strided_slices(value: ir.Value | None) -> list[ir.Node]:
    """The slices x[:, :, ::s, ::s] that end in `value`, last first; none if others need them."""
    found: list[ir.Node] = []
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        node = value.producer()
        if node is None or _strides(node) is None:
            break
        found.append(node)
        value = node.inputs[0]
    return found


def _strides(node: ir.Node) -> tuple[int, int] | None:
    """(vertical, horizontal) step of a slice that takes every n-th row and column, else None."""
    source = node.inputs[0] if node.op_type == "Slice" else None
    if source is None or source.shape is None or len(source.shape) != 4:
        return None
    starts, ends, axes, steps = (_ints(node, i) for i in (1, 2, 3, 4))
    if not len(starts) == len(ends) == len(axes) == len(steps) > 0:
        return None
    strides = [1, 1, 1, 1]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = source.shape[axis]
        whole = end >= (length if isinstance(length, int) else _TO_THE_END)
        if start != 0 or step < 1 or not whole:
            return None
        strides[axis] = step
    return (strides[2], strides[3]) if strides[:2] == [1, 1] else None


def _ints(node: ir.Node, index: int) -> list[int]:
    """The constant at an input as numbers; [] if the input is missing or not constant."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None:
        return []
    return [int(number) for number in value.const_value.numpy().ravel()]


def _replace(graph: ir.Graph, pad: ir.Node, slices: list[ir.Node], pads: tuple[int, int]) -> None:
    source = slices[-1].inputs[0] if slices else pad.inputs[0]
    assert source is not None and source.shape is not None and isinstance(source.shape[1], int)
    steps = [_strides(node) or (1, 1) for node in slices]
    strides = [prod(vertical for vertical, _ in steps), prod(horizontal for _, horizontal in steps)]
    channels = source.shape[1]
    weight = np.zeros((pads[0] + channels + pads[1], channels, 1, 1), np.float32)
    weight[pads[0] + np.arange(channels), np.arange(channels)] = 1
    name = _weight_name(graph, pad)
    constant = ir.Value(name=name, const_value=ir.tensor(weight, name=name))
    constant.shape, constant.dtype = ir.Shape(weight.shape), ir.DataType.FLOAT
    graph.register_initializer(constant)

    conv = ir.node("Conv", [source, constant], {"kernel_shape": [1, 1], "strides": strides})
    output = pad.outputs[0]
    conv.outputs[0].shape, conv.outputs[0].type = output.shape, output.type
    output_name = output.name
    graph.insert_before(pad, conv)
    output.replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
    graph.remove([pad, *slices], safe=True)
    conv.outputs[0].name = output_name


def _weight_name(graph: ir.Graph, pad: ir.Node) -> str:
    """`layer2.0.shortcut.weight`, after the convolution on the other side of the residual Add."""
    stem = "shortcut"
    for consumer in pad.outputs[0].consumers():
        for value in consumer.inputs:
            other = value.producer() if value is not None else None
            if other is not None and other.op_type == "Conv" and other.inputs[1] is not None:
                scope = (other.inputs[1].name or "").removesuffix(".weight").rpartition(".")[0]
                stem = f"{scope}.shortcut" if scope else stem
    name, number = f"{stem}.weight", 2
    while name in graph.initializers:
        name, number = f"{stem}_{number}.weight", number + 1
    return name
