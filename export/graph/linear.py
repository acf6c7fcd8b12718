"""Writes a linear layer without bias as Gemm.

    MatMul(x, Transpose(W))            → Gemm(x, W, transB = 1)      for x of two axes

PyTorch's exporter writes the left form where a layer has no bias, and only there; folding, naming
and quantizers know the right one.
"""

import onnx_ir as ir
from onnx_ir.passes import common as passes

from resdeploy.export.graph.constants import is_constant


def use_gemm(model: ir.Model) -> int:
    """Rewrite in place; how many nodes were replaced."""
    candidates = [node for node in model.graph if _weight_of(node) is not None]
    if not candidates:
        return 0
    passes.ShapeInferencePass()(model)
    count = 0
    for node in candidates:
        source, weight = node.inputs[0], _weight_of(node)
        if source is None or weight is None or source.shape is None or len(source.shape) != 2:
            continue
        gemm = ir.node("Gemm", [source, weight], {"transB": 1}, name=node.name)
        old, transpose = node.outputs[0], node.inputs[1]
        new = gemm.outputs[0]
        new.name, new.type, new.shape = old.name, old.type, old.shape
        model.graph.insert_before(node, gemm)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        producer = transpose.producer() if transpose is not None else None
        if producer is not None and not producer.outputs[0].uses():
            model.graph.remove(producer, safe=True)
        count += 1
    return count


def _weight_of(node: ir.Node) -> ir.Value | None:
    """W if this node is MatMul(x, Transpose(W)) with W a constant matrix."""
    value = node.inputs[1] if node.op_type == "MatMul" else None
    transpose = value.producer() if value is not None else None
    if transpose is None or transpose.op_type != "Transpose":
        return None
    weight = transpose.inputs[0]
    if weight is None or not is_constant(weight) or weight.const_value is None:
        return None
    order = transpose.attributes.get("perm")
    swaps = order is None or list(order.as_ints()) == [1, 0]
    return weight if swaps and len(weight.const_value.shape) == 2 else None
