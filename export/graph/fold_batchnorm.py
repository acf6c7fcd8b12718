"""Folds each batch normalization into a convolution or linear layer beside it, where that is exact.

Let the normalization be s · x + t per channel (`affine`), W and b the weights of a layer and its
bias (0 where there is none).

Behind the layer, per output channel o (axis 0 of W: also right for grouped and depthwise):

    BN(W·x + b) = W'·x + b'            W' = s · W          b' = s · (b − μ) + β

The same through a max pool in between, where no s is negative or zero: s · max x + t is the maximum
of s · x + t.

Behind the sum of two layers, read by nothing else: W' = s · W for both, b' = s · b + t for the
first and s · b for the second.

In front of the layer, per input channel i, with nothing between, not even padding: a padded zero
would have to become −t/s.

    W·BN(x) + b = W'·x + b'            W' = W · s          b' = b + Σ W · t

All of it in float64, rounded to float32 once. What cannot be folded without changing the function,
such as the leading normalization of a pre-activation block (BN → ReLU → convolution), stays and is
reported with its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from resdeploy.deploy.arrays import Float64s
from resdeploy.deploy.bundle.channel_statistics import ChannelStatistics
from resdeploy.export.graph.affine import (
    Affine,
    read_affine,
    why_not_affine,
    write_as_scale_and_shift,
)
from resdeploy.export.graph.constants import bypass
from resdeploy.export.graph.linear import use_gemm
from resdeploy.export.graph.weighted_layer import (
    Layer,
    fits_float32,
    has_padding,
    read_layer,
    relative_error,
    why_not_layer,
    write_layer,
)

_OVERFLOW = "folded weights would overflow float32"


@dataclass(frozen=True)
class FoldResult:
    """The folded graph, and what happened to every batch normalization of the input graph.

    `folded` maps each layer (by the name of its weight, less ".weight") to its proof: the largest
    difference between the stored float32 weights and layer and BN computed step by step in float64,
    over random inputs, relative to the largest output. Rounding to float32 alone gives about 1e-7.
    `skipped` maps batch normalizations to the reason they stayed. `statistics` maps layers that
    took up the normalization right behind them to what their outputs were like in training.
    """

    model: onnx.ModelProto
    folded: Mapping[str, float]
    skipped: Mapping[str, str]
    statistics: Mapping[str, ChannelStatistics] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Batch normalizations still in the graph."""
        return len(self.skipped)


def fold_batchnorm(model: onnx.ModelProto) -> FoldResult:
    """Fold every batch normalization that can be; the graph given is not changed.

    Those that stay become one scale and one shift (`write_as_scale_and_shift`).

    Raises:
        GraphError: σ² + ε is not above zero in some channel (a broken checkpoint).
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    passes.IdentityEliminationPass()(graph_model)
    use_gemm(graph_model)
    folded: dict[str, float] = {}
    skipped: dict[str, str] = {}
    statistics: dict[str, ChannelStatistics] = {}
    for node in [node for node in graph if node.op_type == "BatchNormalization"]:
        name = _name(node)
        reason = why_not_affine(node)
        if reason is None:
            affine = read_affine(node, name)
            layer, into = _layer_before(node), dict[str, float]()
            reason = _fold(graph, node, affine, into)
            folded |= into
            if layer in into:
                statistics[layer] = ChannelStatistics(affine.beta, np.abs(affine.gamma))
            if reason is not None:
                write_as_scale_and_shift(graph, node, affine)
        if reason is not None:
            skipped[name] = reason
    return FoldResult(ir.to_proto(graph_model), folded, skipped, statistics)


def _layer_before(bn: ir.Node) -> str:
    """The name of the layer whose output `bn` reads; "" where there is none."""
    before = bn.inputs[0].producer() if bn.inputs[0] is not None else None
    return "" if before is None or why_not_layer(before) is not None else read_layer(before).name


def _name(bn: ir.Node) -> str:
    """Its parameters' name, such as layer1.0.bn1; the node's where they have none."""
    scale = bn.inputs[1].name if len(bn.inputs) > 1 and bn.inputs[1] is not None else None
    if scale and scale.endswith(".weight"):
        return scale.removesuffix(".weight")
    return bn.name or bn.outputs[0].name or "?"


def _fold(graph: ir.Graph, bn: ir.Node, affine: Affine, folded: dict[str, float]) -> str | None:
    """Fold `bn`; the reason if it must stay, and then nothing is changed."""
    source = bn.inputs[0]
    before = source.producer() if source is not None else None
    behind_sum = before is not None and before.op_type == "Add" and before.graph is bn.graph
    reason = (_fold_behind_sum if behind_sum else _fold_behind)(graph, bn, affine, folded)
    if reason is None:
        return None
    readers = list(bn.outputs[0].uses())
    if len(readers) != 1 or bn.outputs[0].is_graph_output() or readers[0].idx != 0:
        return reason
    after = readers[0].node
    if after.graph is not bn.graph or why_not_layer(after) is not None:
        return reason
    in_front = _fold_in_front(graph, bn, affine, after, folded)
    return f"{reason}; {in_front}" if in_front is not None else None


def _fold_behind(
    graph: ir.Graph, bn: ir.Node, affine: Affine, folded: dict[str, float]
) -> str | None:
    source, pooled = _below_pools(bn)
    before = source.producer() if source is not None else None
    if source is None or before is None or before.graph is not bn.graph:
        return "follows an input, not a convolution"
    reason = why_not_layer(before)
    if reason is not None:
        return reason
    if len(source.uses()) > 1 or source.is_graph_output():
        return "the convolution's output has other consumers"
    if pooled and not (affine.scale > 0).all():
        return "follows a max pool, and its scale is not positive in every channel"
    layer = read_layer(before)
    bias = affine.scale * (layer.bias - affine.mean) + affine.beta
    changed = write_layer(graph, before, layer, layer.scaled_outputs(affine.scale), bias)
    if changed is None:
        return _OVERFLOW
    folded[layer.name] = relative_error(
        changed, lambda patches: affine.step_by_step(layer.answer(patches)), len(layer.rows[0])
    )
    assert bn.inputs[0] is not None
    bypass(graph, bn, bn.inputs[0])
    return None


def _below_pools(bn: ir.Node) -> tuple[ir.Value | None, bool]:
    """What `bn` reads, below any max pools that nothing else reads, and whether there are any."""
    source, pooled = bn.inputs[0], False
    while source is not None and len(source.uses()) == 1 and not source.is_graph_output():
        node = source.producer()
        if node is None or node.op_type != "MaxPool" or node.graph is not bn.graph:
            break
        source, pooled = node.inputs[0], True
    return source, pooled


def _fold_behind_sum(
    graph: ir.Graph, bn: ir.Node, affine: Affine, folded: dict[str, float]
) -> str | None:
    total = bn.inputs[0]
    addition = total.producer() if total is not None else None
    assert total is not None and addition is not None
    if len(total.uses()) > 1 or total.is_graph_output():
        return "leads a block: the sum it reads goes on along the shortcut without it"
    nodes: list[ir.Node] = []
    for value in addition.inputs:
        node = value.producer() if value is not None else None
        if node is None or why_not_layer(node) is not None:
            what = node.op_type if node is not None else "an input or constant"
            return f"leads a block: part of the sum it reads comes from {what}"
        if value is None or len(value.uses()) > 1:
            return "leads a block: part of the sum it reads has other consumers"
        nodes.append(node)
    if len(set(nodes)) != len(nodes):
        return "leads a block: the sum it reads adds a tensor to itself"
    return _scale_parts(graph, bn, affine, nodes, folded)


def _scale_parts(
    graph: ir.Graph, bn: ir.Node, affine: Affine, nodes: list[ir.Node], folded: dict[str, float]
) -> str | None:
    """Scale every layer of a sum; the first takes up the shift."""
    layers = [read_layer(node) for node in nodes]
    shifts = [affine.shift, *(np.zeros_like(affine.shift) for _ in layers[1:])]
    planned = [
        (layer.scaled_outputs(affine.scale), affine.scale * layer.bias + shift)
        for layer, shift in zip(layers, shifts, strict=True)
    ]
    if not all(fits_float32(part) for parts in planned for part in parts):
        return _OVERFLOW
    for node, layer, shift, parts in zip(nodes, layers, shifts, planned, strict=True):
        changed = write_layer(graph, node, layer, *parts)
        assert changed is not None

        def expected(patches: Float64s, layer: Layer = layer, shift: Float64s = shift) -> Float64s:
            return affine.scale[:, None] * layer.answer(patches) + shift[:, None]

        folded[layer.name] = relative_error(changed, expected, len(layer.rows[0]))
    assert bn.inputs[0] is not None
    bypass(graph, bn, bn.inputs[0])
    return None


def _fold_in_front(
    graph: ir.Graph, bn: ir.Node, affine: Affine, after: ir.Node, folded: dict[str, float]
) -> str | None:
    if has_padding(after) and affine.shift.any():
        return "and the convolution behind it pads with zeros, which its shift would change"
    layer = read_layer(after)
    scale, shift = layer.per_input(affine.scale), layer.per_input(affine.shift)
    rows, bias = layer.rows * scale, layer.bias + (layer.rows * shift).sum(axis=1)
    changed = write_layer(graph, after, layer, rows, bias)
    if changed is None:
        return _OVERFLOW

    def expected(patches: Float64s) -> Float64s:
        # each output sees its own group's inputs: (outputs, inputs of a group, patches)
        normalized = scale[:, :, None] * patches[None] + shift[:, :, None]
        answers: Float64s = np.einsum("oi,oip->op", layer.rows, normalized)
        return answers + layer.bias[:, None]

    folded[layer.name] = relative_error(changed, expected, len(layer.rows[0]))
    assert bn.inputs[0] is not None
    bypass(graph, bn, bn.inputs[0])
    return None
