"""Folds each batch normalization that follows a convolution into that convolution.

Per output channel o of the convolution, with W its weights, b its bias (0 where there is none), and
γ, β, μ, σ², ε the scale, shift, running mean, running variance and epsilon of the normalization
(Ioffe & Szegedy 2015, section 3.1, at inference):

    BN(W·x + b) = γ · (W·x + b − μ) / √(σ² + ε) + β = W'·x + b'
    s  = γ / √(σ² + ε)
    W' = s · W                          (along axis 0: also right for grouped and depthwise)
    b' = s · (b − μ) + β

All of it in float64, rounded to float32 once. What cannot be folded without changing the function
stays as it is and is reported with its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.deploy.errors import GraphError

_PROOF_PATCHES = 4


@dataclass(frozen=True)
class FoldResult:
    """The folded graph, and what happened to every batch normalization of the input graph.

    `folded` maps each convolution (by the name of its weight, less ".weight") to its proof: the
    largest difference between the stored float32 weights and conv → BN computed step by step in
    float64, over random input patches, relative to the largest output. Rounding to float32 alone
    gives about 1e-7. `skipped` maps batch normalizations to the reason they stayed.
    """

    model: onnx.ModelProto
    folded: Mapping[str, float]
    skipped: Mapping[str, str]

    @property
    def left(self) -> int:
        """Batch normalizations still in the graph."""
        return len(self.skipped)


@dataclass(frozen=True)
class _Affine:
    """γ, β, μ, σ² + ε of one normalization, float64, shape (channels,)."""

    gamma: NDArray[np.float64]
    beta: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def fold_batchnorm(model: onnx.ModelProto) -> FoldResult:
    """Fold every batch normalization that can be; the graph given is not changed.

    Raises:
        GraphError: σ² + ε is not above zero in some channel (a broken checkpoint).
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    folded: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for node in [node for node in graph if node.op_type == "BatchNormalization"]:
        name = node.name or node.outputs[0].name or "?"
        reason = _why_not(node)
        if reason is None:
            conv, error = _fold(graph, node, name)
            if conv is not None:
                folded[conv] = error
                continue
            reason = "folded weights would overflow float32"
        skipped[name] = reason
    return FoldResult(ir.to_proto(graph_model), folded, skipped)


def _why_not(bn: ir.Node) -> str | None:
    """The reason this normalization must stay, or None if it can be folded."""
    training = bn.attributes.get("training_mode")
    if training is not None and training.as_int():
        return "normalizes by the batch's own statistics (training mode)"
    if any(output.uses() or output.is_graph_output() for output in bn.outputs[1:]):
        return "its running statistics are used as outputs"
    if not all(_is_constant(value) for value in bn.inputs[1:5]):
        return "its parameters are not constants"
    source = bn.inputs[0]
    conv = source.producer() if source is not None else None
    if source is None or conv is None or conv.op_type != "Conv" or conv.graph is not bn.graph:
        return f"follows {conv.op_type if conv else 'an input'}, not a convolution"
    if len(source.uses()) > 1 or source.is_graph_output():
        return "the convolution's output has other consumers"
    weight = conv.inputs[1]
    if weight is None or not _is_constant(weight):
        return "the convolution's weight is not a constant"
    if len(weight.uses()) > 1:
        return f"the weight {weight.name} is shared with another node"
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if bias is not None and not _is_constant(bias):
        return "the convolution's bias is not a constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"the weight {weight.name} is {weight.dtype}, not float32"
    return None


def _is_constant(value: ir.Value | None) -> bool:
    """An initializer that no caller can override by feeding an input of the same name."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def _fold(graph: ir.Graph, bn: ir.Node, name: str) -> tuple[str | None, float]:
    """Fold `bn` into the convolution before it; (None, 0) and no change if float32 overflows."""
    source = bn.inputs[0]
    conv = source.producer() if source is not None else None
    assert source is not None and conv is not None and conv.inputs[1] is not None
    weight = conv.inputs[1]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    w = _float64(weight)
    b = _float64(bias) if bias is not None else np.zeros(len(w))
    affine = _read(bn, name)

    s = affine.gamma / np.sqrt(affine.variance)
    with np.errstate(over="ignore"):
        w_folded = (w * s.reshape(-1, *[1] * (w.ndim - 1))).astype(np.float32)
        b_folded = (s * (b - affine.mean) + affine.beta).astype(np.float32)
    if not (np.isfinite(w_folded).all() and np.isfinite(b_folded).all()):
        return None, 0.0

    stem = (weight.name or name).removesuffix(".weight")
    _set_constant(weight, w_folded)
    if bias is not None and len(bias.uses()) == 1:
        _set_constant(bias, b_folded)
    else:
        bias = _new_initializer(graph, f"{stem}.bias", b_folded)
        conv.resize_inputs(3)
        conv.replace_input_with(2, bias)
    _bypass(graph, bn, source)
    return stem, _proof(w, b, affine, w_folded, b_folded)


def _bypass(graph: ir.Graph, bn: ir.Node, source: ir.Value) -> None:
    """Take `bn` and the parameters only it used out of the graph; a graph output keeps its name."""
    output, parameters = bn.outputs[0], bn.inputs[1:5]
    name, is_output = output.name, output.is_graph_output()
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(bn, safe=True)
    if is_output:
        source.name, source.type, source.shape = name, output.type, output.shape
    for value in parameters:
        if value is not None and value.name and value.is_initializer() and not value.uses():
            del graph.initializers[value.name]


def _read(bn: ir.Node, name: str) -> _Affine:
    gamma, beta, mean, variance = (_float64(value) for value in bn.inputs[1:5])
    epsilon = bn.attributes.get("epsilon")
    variance = variance + (epsilon.as_float() if epsilon is not None else 1e-5)
    broken = np.flatnonzero(~(variance > 0))
    if broken.size:
        value = bn.inputs[4]
        raise GraphError(
            f"batch norm {name} cannot be folded: running variance + epsilon is "
            f"{variance[broken[0]]:g} in channel {broken[0]} of {value.name if value else '?'}, "
            "expected above zero: the checkpoint is damaged or its eps is another"
        )
    return _Affine(gamma, beta, mean, variance)


def _proof(
    w: NDArray[np.float64],
    b: NDArray[np.float64],
    affine: _Affine,
    w_folded: NDArray[np.float32],
    b_folded: NDArray[np.float32],
) -> float:
    """Largest relative difference on random patches.

    At one output position a convolution, grouped or not, is a matrix (channels, patch) times the
    patch its group sees, so any vector of that length is an input that can occur.
    """
    patches = np.random.default_rng(0).standard_normal((w[0].size, _PROOF_PATCHES))
    rows = (len(w), -1)
    convolved = w.reshape(rows) @ patches + b[:, None]
    centred = (convolved - affine.mean[:, None]) / np.sqrt(affine.variance)[:, None]
    expected = affine.gamma[:, None] * centred + affine.beta[:, None]
    got = w_folded.astype(np.float64).reshape(rows) @ patches + b_folded.astype(np.float64)[:, None]
    largest = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(got - expected).max(initial=0.0)) / largest if largest else 0.0


def _float64(value: ir.Value | None) -> NDArray[np.float64]:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def _set_constant(value: ir.Value, array: NDArray[np.float32]) -> None:
    value.const_value = ir.tensor(array, name=value.name)
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.FLOAT


def _new_initializer(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    while name in taken:
        name += "_folded"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.FLOAT
    graph.register_initializer(value)
    return value
