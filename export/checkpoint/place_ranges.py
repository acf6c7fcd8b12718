"""Names the ranges of quantization-aware training by the tensors of the exported float graph.

    LAYER.input      what the convolution reads
    LAYER.output     what it writes, batch normalization and activation included
    BLOCK.residual   what the block's addition takes from the shortcut
    (a number)       what `numbered_ranges` finds
    LAYER.weight     its weight: batch-norm folding scales each output channel w to k·w, and with it
                     the channel's grid; k is read off the two weights. torch.ao's fused ConvBn
                     rounds the folded weight, there k = 1

Nodes are named after the parameters (`export.graph.names`), sums after their block. Where several
layers read one tensor, the widest of their ranges is taken: none of them loses what it kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.trained_ranges import TrainedRanges
from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.numbered_ranges import numbered_ranges
from resdeploy.export.checkpoint.read import Checkpoint
from resdeploy.export.checkpoint.weights.trained_ranges import TrainedRange

_ACTIVATIONS = ("Relu", "Clip")
# torch.ao's stub in front of the first layer, whose output is the network's input.
_INPUT_STUBS = ("quant", "quant_stub")
# What a block's shortcut is called within it.
_SHORTCUTS = ("downsample", "shortcut", "residual")
# How far the k of one channel's weights may spread: float32 rounding.
_SPREAD = 1e-3


@dataclass(frozen=True)
class _Placing:
    """The graph by names, and the checkpoint's tensors by the checkpoint's names."""

    nodes: Mapping[str, NodeProto]
    initializers: Mapping[str, onnx.TensorProto]
    input: str
    tensors: Mapping[str, Float32s]

    def fused(self, own: str) -> bool:
        """Whether the layer is torch.ao's, with its batch norm inside."""
        return f"{own}.bn.weight" in self.tensors

    def weights_of(self, node: NodeProto, own: str) -> tuple[Float32s, Float32s] | None:
        """The layer's weight in the checkpoint and in the graph, None where they do not match."""
        trained = self.tensors.get(f"{own}.weight")
        if trained is None or len(node.input) < 2 or node.input[1] not in self.initializers:
            return None
        folded = numpy_helper.to_array(self.initializers[node.input[1]])
        return (trained, folded) if folded.shape == trained.shape else None


def place_ranges(
    model: onnx.ModelProto, checkpoint: Checkpoint, architecture: Architecture
) -> TrainedRanges:
    """The checkpoint's ranges by tensor of `model`, its fp32.onnx."""
    placing = _Placing(
        {node.name: node for node in model.graph.node},
        {tensor.name: tensor for tensor in model.graph.initializer},
        model.graph.input[0].name,
        checkpoint.tensors,
    )
    names = _layer_names(checkpoint, architecture)
    activations: dict[str, tuple[float, float]] = {}
    peaks: dict[str, Float32s] = {}
    unplaced = []
    numbered = numbered_ranges(model, checkpoint.trained_ranges)
    for key, trained in checkpoint.trained_ranges.items():
        own, _, kind = key.removeprefix(checkpoint.prefix).rpartition(".")
        layer = names.get(own, own)
        peak = _weight_peak(placing, layer, own, trained) if kind == "weight" else None
        tensor = numbered.get(key) or _tensor(placing, layer, own, kind)
        if peak is not None:
            peaks[placing.nodes[layer].input[1]] = peak
        elif tensor is not None and trained.low.size == 1:
            low, high = activations.get(tensor, (0.0, 0.0))
            ends = float(trained.low.item()), float(trained.high.item())
            activations[tensor] = min(low, ends[0]), max(high, ends[1])
        else:
            unplaced.append(key)
    return TrainedRanges(_behind_pools(model, activations), peaks, tuple(unplaced))


def _behind_pools(
    model: onnx.ModelProto, activations: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Also for what a max pool gives: values of its input, on the same grid."""
    found = dict(activations)
    for node in model.graph.node:
        if node.op_type == "MaxPool" and node.input[0] in found:
            found.setdefault(node.output[0], found[node.input[0]])
    return found


def without_input(ranges: TrainedRanges, model: onnx.ModelProto) -> TrainedRanges:
    """The same for a graph whose input is no longer what the network was trained to read."""
    name = model.graph.input[0].name
    kept = {tensor: ends for tensor, ends in ranges.activations.items() if tensor != name}
    return TrainedRanges(kept, ranges.weights, ranges.unplaced)


def _layer_names(checkpoint: Checkpoint, architecture: Architecture) -> dict[str, str]:
    """The checkpoint's own name of a layer → its name in the module, and so in the graph."""
    own = (
        architecture.fit.names
        if architecture.fit is not None
        else {name: name for name in checkpoint.tensors}
    )
    return {
        theirs.removesuffix(".weight"): ours.removesuffix(".weight")
        for ours, theirs in own.items()
        if theirs.endswith(".weight")
    }


def _tensor(placing: _Placing, layer: str, own: str, kind: str) -> str | None:
    """The tensor that an activation's range belongs to, None where it has none or is not sure."""
    if kind == "output" and layer in _INPUT_STUBS:
        return placing.input
    block, _, last = layer.rpartition(".")
    if kind == "residual":
        return _shortcut(placing, layer)
    if kind == "output" and "add" in last.split("_"):
        sums = (f"{block}.{name}".lstrip(".") for name in ("add", "conv.add"))
        total = next((placing.nodes[name] for name in sums if name in placing.nodes), None)
        return None if total is None else _behind_activation(placing, total)
    node = placing.nodes.get(layer)
    if node is None:
        return None
    if kind == "input":
        return str(node.input[0])
    whole = kind == "output" and (placing.fused(own) or _is_unfolded(placing, node, own))
    return _behind_activation(placing, node) if whole else None


def _shortcut(placing: _Placing, block: str) -> str | None:
    """What the block's sum reads from elsewhere than the block's own convolutions."""
    total = placing.nodes.get(f"{block}.add")
    if total is None:
        return None
    inside = {
        node.output[0]
        for name, node in placing.nodes.items()
        if name.startswith(f"{block}.") and not name[len(block) + 1 :].startswith(_SHORTCUTS)
    }
    found = [tensor for tensor in total.input if tensor not in inside]
    return found[0] if len(found) == 1 else None


def _behind_activation(placing: _Placing, node: NodeProto) -> str:
    readers = [other for other in placing.nodes.values() if node.output[0] in other.input]
    if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS:
        return str(readers[0].output[0])
    return str(node.output[0])


def _is_unfolded(placing: _Placing, node: NodeProto, own: str) -> bool:
    """Whether no batch norm behind the layer became part of it: then its output is this one."""
    pair = placing.weights_of(node, own)
    return pair is not None and bool(np.array_equal(*pair))


def _weight_peak(placing: _Placing, layer: str, own: str, trained: TrainedRange) -> Float32s | None:
    """The trained grid of the folded weight as max|w| of each output channel.

    None where there is none: grids are per channel or per tensor, folds may scale input channels.
    """
    node = placing.nodes.get(layer)
    pair = None if node is None else placing.weights_of(node, own)
    amax = trained.amax.ravel()
    if pair is None or amax.size not in (1, len(pair[0])):
        return None
    before, after = (w.reshape(len(w), -1).astype(np.float64) for w in pair)
    if placing.fused(own):
        return np.broadcast_to(amax, len(after)).astype(np.float32)
    peaks = np.abs(after).max(axis=1)
    factor = peaks / np.maximum(np.abs(before).max(axis=1), np.finfo(np.float32).tiny)
    apart = np.abs(np.abs(after) - factor[:, None] * np.abs(before)).max(axis=1)
    if (apart > _SPREAD * peaks).any():
        return None
    return np.asarray(amax * factor, np.float32)
