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
  - so is a Concat: what it joins takes its range, unless a range of its own serves another reader.
    Rounding once on the common grid loses less than rounding twice, and needs no requantization;
  - an AveragePool between quantized tensors reads the quantized one, which is in memory anyway;
  - a hidden Gemm is a convolution of one position; the head and every Gemm behind a global
    average (MobileNetV3's first) stay float, as does what lies between convolutions otherwise:
    batch norms that could not be folded, multiplications, channel shuffles.
For ONNX Runtime's CPU kernels (uint8) every convolution and Add needs quantized inputs *and* a
quantized output (after its Relu or Clip), and every reader of such a tensor reads it quantized.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto

from resdeploy.calibration.graph.layers import is_product
from resdeploy.calibration.graph.topology import Wiring, check_quantizable, wire
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.targets import TENSORRT, Target

_ACTIVATIONS = ("Relu", "Clip")
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class QuantPlan:
    """Where quantization goes. Tensors and nodes are named as in the float graph.

    activations: tensors that get one Q/DQ pair each, in graph order.
    edges: (node name, input index) pairs that read the dequantized tensor; others read the float.
    weights: weight initializer → name of the node it belongs to (output channels on axis 0).
    same_range: tensor → the tensor whose range it takes.
    skipped: node name → why it computes in float.
    """

    target: Target
    activations: tuple[str, ...]
    edges: frozenset[tuple[str, int]]
    weights: Mapping[str, str]
    same_range: Mapping[str, str]
    skipped: Mapping[str, str]


@dataclass
class _Placement:
    """What is decided so far."""

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
    target: Target = TENSORRT,
    float_nodes: Collection[str] = (),
) -> QuantPlan:
    """Place quantization in a float graph (batch normalization folded, operator set 13 or newer).

    `float_nodes` are node names to leave in float.

    Raises:
        GraphError: the graph is no float graph of ours (see `check_quantizable`), or a name in
            `float_nodes` is not in it.
    """
    check_quantizable(model)
    wiring = wire(model)
    _check_known(wiring, float_nodes)
    placing = _Placement(wiring)
    for node in wiring.nodes:
        _place_weighted(placing, node, float_nodes)
    if target.quantizes_outputs:
        _place_outputs(placing, float_nodes)
        _enter(placing)
        placing.edges |= {
            (n.name, i) for t in placing.tensors for n, i in wiring.consumers.get(t, ())
        }
    else:
        _place_skips(placing, float_nodes)
        _enter(placing)
    order = [*wiring.inputs, *(tensor for node in wiring.nodes for tensor in node.output)]
    return QuantPlan(
        target=target,
        activations=tuple(tensor for tensor in order if tensor in placing.tensors),
        edges=frozenset(placing.edges),
        weights=placing.weights,
        same_range={tensor: placing.leader(tensor) for tensor in placing.same_range},
        skipped=placing.skipped,
    )


def _check_known(wiring: Wiring, float_nodes: Collection[str]) -> None:
    unknown = sorted(set(float_nodes) - {node.name for node in wiring.nodes})
    if unknown:
        raise GraphError(
            f"layer {unknown[0]!r} cannot be left float, the graph has no such node: "
            "resdeploy inspect lists the layers"
        )


def _place_weighted(placing: _Placement, node: NodeProto, float_nodes: Collection[str]) -> None:
    if node.op_type not in ("Conv", "Gemm"):
        return
    reason = _why_float(placing.wiring, node, float_nodes)
    if reason:
        placing.skipped[node.name] = reason
        return
    placing.quantized.add(node.name)
    placing.weights.setdefault(node.input[1], node.name)
    placing.read_quantized(node, 0)
    placing.edges.add((node.name, 1))


def _why_float(wiring: Wiring, node: NodeProto, float_nodes: Collection[str]) -> str | None:
    if node.name in float_nodes:
        return "left float on request"
    if node.input[1] not in wiring.constants:
        return f"its weight {node.input[1]!r} is computed, not a constant"
    return _why_float_gemm(wiring, node) if node.op_type == "Gemm" else None


def _is_head(wiring: Wiring, node: NodeProto) -> bool:
    """Whether no weighted layer comes after this one."""
    tensors = [node.output[0]]
    while tensors:
        for reader, _ in wiring.consumers.get(tensors.pop(), ()):
            if reader.op_type in _WEIGHTED:
                return False
            tensors += reader.output
    return True


def _why_float_gemm(wiring: Wiring, node: NodeProto) -> str | None:
    if _is_head(wiring, node):
        return "the head stays float: it is small and decides the answer"
    if node.input[0] in _pooled(wiring):
        return "it reads global averages, which 8 bits hold badly, and only one position an image"
    if not is_product(node):
        return "a Gemm of another form than x·Wᵀ + b"
    return None


def _pooled(wiring: Wiring) -> set[str]:
    """Tensors with one value a channel: a global average, and what is computed of nothing else."""
    found: set[str] = set()
    for node in wiring.nodes:
        read = [tensor for tensor in node.input if tensor and tensor not in wiring.constants]
        if node.op_type == "GlobalAveragePool" or (read and found.issuperset(read)):
            found.update(node.output)
    return found


def _place_skips(placing: _Placement, float_nodes: Collection[str]) -> None:
    depth = _weighted_depth(placing.wiring)
    for node in placing.wiring.nodes:
        if node.op_type != "Add":
            continue
        reason = _why_float_add(placing, node, float_nodes) or _why_no_skip(placing, node)
        if reason:
            placing.skipped[node.name] = reason
            continue
        # Equal depth says nothing about which is the skip: then the second, as PyTorch's
        # `out += identity` writes it.
        placing.read_quantized(node, 0 if depth[node.input[0]] < depth[node.input[1]] else 1)


def _why_float_add(
    placing: _Placement, node: NodeProto, float_nodes: Collection[str]
) -> str | None:
    if node.name in float_nodes:
        return "left float on request"
    if any(tensor in placing.wiring.constants for tensor in node.input):
        return "adds a constant, not a residual"
    return None


def _why_no_skip(placing: _Placement, node: NodeProto) -> str | None:
    sources = [placing.wiring.producer.get(tensor) for tensor in node.input]
    if not any(source is not None and source.name in placing.quantized for source in sources):
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


def _place_outputs(placing: _Placement, float_nodes: Collection[str]) -> None:
    wiring = placing.wiring
    for node in wiring.nodes:
        if node.op_type == "Add":
            reason = _why_float_add(placing, node, float_nodes) or _why_float_sum(wiring, node)
            if reason:
                placing.skipped[node.name] = reason
                continue
            placing.quantized.add(node.name)
            placing.tensors.update(node.input)
        if node.op_type in ("Conv", "Gemm", "Add") and node.name in placing.quantized:
            result = _after_activation(wiring, node.output[0])
            if result not in wiring.outputs:
                placing.tensors.add(result)


def _why_float_sum(wiring: Wiring, node: NodeProto) -> str | None:
    """Pre-activation networks: every block would round the sum of all blocks before it again."""
    readers = [reader for reader, _ in wiring.consumers.get(node.output[0], ())]
    if any(reader.op_type == "BatchNormalization" for reader in readers):
        return "a batch normalization reads the sum in float"
    return None


def _after_activation(wiring: Wiring, tensor: str) -> str:
    reader = wiring.sole_consumer(tensor)
    while reader is not None and reader.op_type in _ACTIVATIONS:
        tensor = reader.output[0]
        reader = wiring.sole_consumer(tensor)
    return tensor


def _enter(placing: _Placement) -> None:
    """Let poolings and concatenations in front of quantized readers read quantized tensors."""
    for node in reversed(placing.wiring.nodes):
        if node.output[0] not in placing.tensors:
            continue
        if node.op_type == "MaxPool":
            _enter_pool(placing, node)
        elif node.op_type == "Concat":
            _enter_concat(placing, node)
        elif node.op_type == "AveragePool" and node.input[0] in placing.tensors:
            placing.read_quantized(node, 0)


def _enter_pool(placing: _Placement, node: NodeProto) -> None:
    source, result = node.input[0], node.output[0]
    if source in placing.tensors:
        # Read elsewhere too, where its own range matters: the pool follows it, unless it is joined
        # to others already, whose range is not the source's.
        if result not in placing.same_range:
            placing.follow(result, source)
    else:
        placing.follow(source, result)
    placing.read_quantized(node, 0)


def _enter_concat(placing: _Placement, node: NodeProto) -> None:
    if any(tensor in placing.wiring.constants for tensor in node.input):
        return
    for index, tensor in enumerate(node.input):
        if tensor not in placing.tensors or placing.wiring.sole_consumer(tensor) is not None:
            placing.follow(tensor, node.output[0])
        placing.read_quantized(node, index)
