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


def use_global_pool(graph: ir.Graph) -> int:
    """Rewrite in place; how many nodes were replaced. Needs inferred shapes on the tensors."""
    count = 0
    for node in list(graph):
        if _averages_image(node):
            count += 1
            _replace_mean(graph, node)
        elif _flattens(node):
            count += 1
            _replace(graph, node, [_node("Flatten", node, {"axis": 1})])
    return count


def _averages_image(node: ir.Node) -> bool:
    shape = _shape(node.inputs[0]) if node.inputs else None
    if shape is None or len(shape) != 4:
        return False
    if node.op_type == "ReduceMean":
        axes = _axes(node)
        return axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]
    if node.op_type == "AveragePool":
        pads = node.attributes.get("pads")
        return (
            list(node.attributes["kernel_shape"].as_ints()) == list(shape[2:])
            and (pads is None or not any(pads.as_ints()))
            and node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        )
    return False


def _axes(node: ir.Node) -> Sequence[int] | None:
    """The axes of a reduction: an attribute up to opset 17, an input from 18 on."""
    if "axes" in node.attributes:
        return node.attributes["axes"].as_ints()
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = node.inputs[1].const_value
        return None if constant is None else [int(axis) for axis in constant.numpy()]
    return None


def _flattens(node: ir.Node) -> bool:
    """(N, d1, d2, …) → (N, d1·d2·…): as a reshape keeps the number of elements, either output
    dimension tells the other."""
    if node.op_type not in ("Reshape", "Squeeze"):
        return False
    before, after = _shape(node.inputs[0]), _shape(node.outputs[0])
    if before is None or len(before) < 2:
        return False
    features = [dim for dim in before[1:] if isinstance(dim, int)]
    if len(features) != len(before) - 1:
        return False
    if after is not None and len(after) == 2 and after[1] == prod(features):
        return True
    return node.op_type == "Reshape" and _keeps_batch(node.inputs[1], before[0])


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


def _is_zero(value: ir.Value | None) -> bool:
    return (
        value is not None and value.const_value is not None and not value.const_value.numpy().any()
    )


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
