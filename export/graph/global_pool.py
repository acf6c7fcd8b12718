"""Writes every pooling over the whole image as GlobalAveragePool, and what flattens it as Flatten.

    ReduceMean(x, axes = 2, 3)            → GlobalAveragePool (→ Flatten, without kept dimensions)
    AveragePool(x, kernel = H × W)        → GlobalAveragePool
    Reshape, Squeeze (N, C, …) → (N, K)   → Flatten(axis = 1)

A mean with its axes as an input (opset 18) is misread by the parsers of TensorRT 8.5 and 8.6, which
average over every axis, the batch included; and quantizers know the pooling, not the mean.
"""

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from resdeploy.export.graph.edits import Rewrites

_ORDINARY = "averages a part of the image"


def use_global_pool(graph: ir.Graph) -> Rewrites:
    """Rewrite in place. Needs inferred shapes on the tensors."""
    count = 0
    declined: dict[str, str] = {}
    for node in list(graph):
        pools = node.op_type in ("ReduceMean", "AveragePool")
        if not pools and node.op_type not in ("Reshape", "Squeeze"):
            continue
        reason = _why_not_pool(node) if pools else _why_not_flatten(node)
        if reason is None and pools:
            _replace_mean(graph, node)
        elif reason is None:
            _replace(graph, node, [_node("Flatten", node, {"axis": 1})])
        if reason is None:
            count += 1
        elif reason != _ORDINARY:
            declined[node.name or node.outputs[0].name or node.op_type] = reason
    return Rewrites(count, declined)


def _why_not_pool(node: ir.Node) -> str | None:
    """Why this is not the mean over the whole image, or None if it is."""
    shape = _shape(node.inputs[0]) if node.inputs else None
    if shape is None:
        return "the size of what it reads is not known"
    if len(shape) != 4:
        return f"reads a tensor of {len(shape)} axes, not images"
    if node.op_type == "ReduceMean":
        axes = _axes(node)
        if axes is None:
            return "its axes are computed, or all of them"
        if sorted(axis % 4 for axis in axes) != [2, 3]:
            return f"averages over axes {', '.join(map(str, axes))}, not over the image"
        return None
    if list(node.attributes["kernel_shape"].as_ints()) != list(shape[2:]):
        return _ORDINARY
    pads = node.attributes.get("pads")
    if pads is not None and any(pads.as_ints()):
        return "pads the image that it averages"
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "pads the image that it averages"
    return None


def _axes(node: ir.Node) -> Sequence[int] | None:
    """The axes of a reduction: an attribute up to opset 17, an input from 18 on."""
    if "axes" in node.attributes:
        return node.attributes["axes"].as_ints()
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = node.inputs[1].const_value
        return None if constant is None else [int(axis) for axis in constant.numpy()]
    return None


def _why_not_flatten(node: ir.Node) -> str | None:
    """Why this is not (N, d1, d2, …) → (N, d1·d2·…), or None if it is: as a reshape keeps the
    number of elements, either output dimension tells the other."""
    before, after = _shape(node.inputs[0]), _shape(node.outputs[0])
    if before is None:
        return "the size of what it reads is not known"
    features = [dim for dim in before[1:] if isinstance(dim, int)]
    if len(before) < 2 or len(features) != len(before) - 1:
        return "the size of what it reads is not known"
    if after is not None and len(after) == 2 and after[1] == prod(features):
        return None
    if node.op_type == "Reshape" and _keeps_batch(node.inputs[1], before[0]):
        return None
    return "its result is not one row per image"


def _keeps_batch(target: ir.Value | None, batch: int | str | None) -> bool:
    """`target` is [size of the batch, one number]: what x.view(x.size(0), -1) is traced to."""
    concat = target.producer() if target is not None else None
    if concat is None or concat.op_type != "Concat" or len(concat.inputs) != 2:
        return False
    first, rest = concat.inputs
    if rest is None or rest.const_value is None or rest.const_value.size != 1:
        return False
    source = first.producer() if first is not None else None
    while source is not None and source.op_type in ("Unsqueeze", "Squeeze", "Gather"):
        index = (
            source.inputs[1].const_value if len(source.inputs) > 1 and source.inputs[1] else None
        )
        if source.op_type == "Gather" and (index is None or index.numpy().any()):
            return False
        source = source.inputs[0].producer() if source.inputs[0] is not None else None
    if source is None or source.op_type != "Shape" or batch is None:
        return False
    start = source.attributes.get_int("start", 0)
    shape = _shape(source.inputs[0])
    return start == 0 and shape is not None and len(shape) > 0 and shape[0] == batch


def _replace_mean(graph: ir.Graph, node: ir.Node) -> None:
    shape = _shape(node.inputs[0])
    assert shape is not None
    pool = _node("GlobalAveragePool", node, {})
    pool.outputs[0].shape = ir.Shape([*shape[:2], 1, 1])
    nodes = [pool]
    if node.op_type == "ReduceMean" and not node.attributes.get_int("keepdims", 1):
        flatten = ir.node("Flatten", [pool.outputs[0]], {"axis": 1})
        flatten.outputs[0].type = node.outputs[0].type
        nodes.append(flatten)
    _replace(graph, node, nodes)


def _node(op_type: str, old: ir.Node, attributes: dict[str, int]) -> ir.Node:
    new = ir.node(op_type, [old.inputs[0]], attributes)
    new.outputs[0].type = old.outputs[0].type
    return new


def _replace(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Put the chain `new` where `old` was; its last output takes over name and shape."""
    last, output = new[-1].outputs[0], old.outputs[0]
    last.shape, name = output.shape, output.name
    graph.insert_before(old, new)
    output.replace_all_uses_with(last, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    last.name = name


def _shape(value: ir.Value | None) -> list[int | str | None] | None:
    """Dimensions as numbers, or as the name of a dynamic one; None when nothing is known."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]
