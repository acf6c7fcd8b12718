"""Decides which tensors of a float graph are quantized, and where the quantized value is read.

For TensorRT (symmetric int8, one graph for 8.x to 11.x and RTX), following its rules for
explicit quantization:
  - the inputs of convolutions are quantized, never their outputs: convolution, Relu or Clip and
    the next quantization then fuse into one int8 kernel;
  - weights per output channel, biases stay float;
  - of a residual Add exactly one operand, the skip. The other one comes out of a convolution
    that then fuses with the addition; the skip is the operand with fewer convolutions behind it;
  - a MaxPool in front of a quantized reader is entered quantized, with the range of its output:
    taking the maximum and rounding commute, so the second rounding changes nothing;
  - the final pooling and the head stay float.
For ONNX Runtime's CPU kernels (uint8) every convolution and Add needs quantized inputs *and* a
quantized output (after its Relu or Clip), and every reader of such a tensor reads it quantized.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx
from onnx import NodeProto

from resdeploy.calibration.wiring import Wiring, check_quantizable, wire
from resdeploy.deploy.errors import GraphError

PlanTarget = Literal["tensorrt", "cpu"]

_ACTIVATIONS = ("Relu", "Clip")


@dataclass(frozen=True)
class QuantPlan:
    """Where quantization goes. Tensors and nodes are named as in the float graph.

    activations: tensors that get one Q/DQ pair each, in graph order.
    edges: (node name, input index) pairs that read the dequantized tensor; others read the float.
    weights: weight initializer → name of the node it belongs to (output channels on axis 0).
    same_range: tensor → the tensor whose range it takes.
    skipped: node name → why it computes in float.
    """

    target: PlanTarget
    activations: tuple[str, ...]
    edges: frozenset[tuple[str, int]]
    weights: Mapping[str, str]
    same_range: Mapping[str, str]
    skipped: Mapping[str, str]


@dataclass
class _Draft:
    wiring: Wiring
    tensors: set[str] = field(default_factory=set)
    edges: set[tuple[str, int]] = field(default_factory=set)
    weights: dict[str, str] = field(default_factory=dict)
    same_range: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    quantized: set[str] = field(default_factory=set)

    def read_quantized(self, node: NodeProto, index: int) -> None:
        self.tensors.add(node.input[index])
        self.edges.add((node.name, index))

    def leader(self, tensor: str) -> str:
        while tensor in self.same_range:
            tensor = self.same_range[tensor]
        return tensor

    def follow(self, tensor: str, other: str) -> None:
        if self.leader(tensor) != self.leader(other):
            self.same_range[self.leader(tensor)] = self.leader(other)


def plan(
    model: onnx.ModelProto,
    *,
    target: PlanTarget = "tensorrt",
    float_nodes: Collection[str] = (),
    head: bool = False,
) -> QuantPlan:
    """Place quantization in a float graph (batch normalization folded, operator set 13 or newer).

    `float_nodes` are node names to leave in float; `head` also quantizes the final Gemm.

    Raises:
        GraphError: the graph is no float graph of ours (see `check_quantizable`), or a name in
            `float_nodes` is not in it.
    """
    check_quantizable(model)
    wiring = wire(model)
    unknown = sorted(set(float_nodes) - {node.name for node in wiring.nodes})
    if unknown:
        raise GraphError(
            f"layer {unknown[0]!r} cannot be left float, the graph has no such node: "
            "resdeploy inspect lists the layers"
        )
    draft = _Draft(wiring)
    for node in wiring.nodes:
        _place_weighted(draft, node, float_nodes, head)
    if target == "tensorrt":
        _place_skips(draft, float_nodes)
    else:
        _place_outputs(draft, float_nodes)
    _enter_pools(draft)
    if target == "cpu":
        draft.edges |= {(n.name, i) for t in draft.tensors for n, i in wiring.consumers.get(t, ())}
    order = [*wiring.inputs, *(tensor for node in wiring.nodes for tensor in node.output)]
    return QuantPlan(
        target=target,
        activations=tuple(tensor for tensor in order if tensor in draft.tensors),
        edges=frozenset(draft.edges),
        weights=draft.weights,
        same_range={tensor: draft.leader(tensor) for tensor in draft.same_range},
        skipped=draft.skipped,
    )


def _place_weighted(
    draft: _Draft, node: NodeProto, float_nodes: Collection[str], head: bool
) -> None:
    if node.op_type not in ("Conv", "Gemm"):
        return
    reason = _why_float(draft.wiring, node, float_nodes, head)
    if reason:
        draft.skipped[node.name] = reason
        return
    draft.quantized.add(node.name)
    draft.weights.setdefault(node.input[1], node.name)
    draft.read_quantized(node, 0)
    draft.edges.add((node.name, 1))


def _why_float(
    wiring: Wiring, node: NodeProto, float_nodes: Collection[str], head: bool
) -> str | None:
    if node.name in float_nodes:
        return "left float on request"
    if node.input[1] not in wiring.constants:
        return f"its weight {node.input[1]!r} is computed, not a constant"
    if node.op_type == "Gemm":
        if not head:
            return "the head stays float: it is small and decides the answer"
        if not any(a.name == "transB" and a.i == 1 for a in node.attribute):
            return "its weight does not have the output channels first"
    return None


def _place_skips(draft: _Draft, float_nodes: Collection[str]) -> None:
    depth = _weighted_depth(draft.wiring)
    for node in draft.wiring.nodes:
        if node.op_type != "Add":
            continue
        reason = _why_float_add(draft, node, float_nodes)
        if reason:
            draft.skipped[node.name] = reason
            continue
        # Equal depth says nothing about which is the skip: then the second, as PyTorch's
        # `out += identity` writes it.
        draft.read_quantized(node, 0 if depth[node.input[0]] < depth[node.input[1]] else 1)


def _why_float_add(draft: _Draft, node: NodeProto, float_nodes: Collection[str]) -> str | None:
    if node.name in float_nodes:
        return "left float on request"
    if any(tensor in draft.wiring.constants for tensor in node.input):
        return "adds a constant, not a residual"
    sources = [draft.wiring.producer.get(tensor) for tensor in node.input]
    if not any(source is not None and source.name in draft.quantized for source in sources):
        return "neither operand comes from a quantized convolution"
    return None


def _weighted_depth(wiring: Wiring) -> dict[str, int]:
    """Tensor → number of Conv and Gemm nodes on the longest way from the input to it."""
    depth = dict.fromkeys(wiring.inputs, 0)
    for node in wiring.nodes:
        behind = max((depth.get(tensor, 0) for tensor in node.input), default=0)
        for tensor in node.output:
            depth[tensor] = behind + (node.op_type in ("Conv", "Gemm"))
    return depth


def _place_outputs(draft: _Draft, float_nodes: Collection[str]) -> None:
    wiring = draft.wiring
    for node in wiring.nodes:
        if node.op_type == "Add":
            if node.name in float_nodes or any(t in wiring.constants for t in node.input):
                draft.skipped[node.name] = "left float on request or adds a constant"
                continue
            draft.quantized.add(node.name)
            draft.tensors.update(node.input)
        if node.op_type in ("Conv", "Add") and node.name in draft.quantized:
            result = _after_activation(wiring, node.output[0])
            if result not in wiring.outputs:
                draft.tensors.add(result)


def _after_activation(wiring: Wiring, tensor: str) -> str:
    reader = wiring.sole_consumer(tensor)
    while reader is not None and reader.op_type in _ACTIVATIONS:
        tensor = reader.output[0]
        reader = wiring.sole_consumer(tensor)
    return tensor


def _enter_pools(draft: _Draft) -> None:
    for node in reversed(draft.wiring.nodes):
        if node.op_type != "MaxPool" or node.output[0] not in draft.tensors:
            continue
        source, result = node.input[0], node.output[0]
        if source in draft.tensors:
            # Read elsewhere too, where its own range matters: the pool follows it.
            draft.follow(result, source)
        else:
            draft.follow(source, result)
        draft.read_quantized(node, 0)
