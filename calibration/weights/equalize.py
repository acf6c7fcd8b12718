"""Cross-layer equalization: channels that share one grid are brought to like size, for nothing.

Scaling channel c of a tensor by t_c changes no answer when the rows that write it are multiplied
and the columns that read it divided:

    y = W₂·f(W₁·u + b₁) = (W₂/t)·f(t·W₁·u + t·b₁)          for f(t·x) = t·f(x), t > 0

(Nagel et al. 2019, section 4.1). What shares one scale here is the activation: with
m_c = max|x_c| over the images

    t = max(m) / m_c     if the reader is depthwise: its own scale per channel absorbs 1/t
    t = √(max(m) / m_c)  else: a reader that mixes channels pays in the rounding of its weights

Tensors that an Add joins share one t, so residual stages are equalized as a whole. ReLU6 is not
homogeneous: a channel that stays below 3 on the images is taken halfway to 6, t ≤ √(6/m_c), so
that unseen images still find room below the 6; others keep t = 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from resdeploy.calibration.graph.layers import Layer, constants, layers, with_constants
from resdeploy.calibration.graph.topology import Wiring, wire
from resdeploy.deploy.arrays import Float32s, Float64s

# Operators that pass each channel on by itself, scaled when it is, with the same largest value.
_PASSING = ("Add", "Relu", "Clip", "MaxPool")
# No channel is scaled by more: a nearly dead one would only collect rounding errors.
LARGEST_STEP = 1e3
# Share of its bound above which a channel is left alone: unseen images may bring it there.
_NEAR_BOUND = 0.5


@dataclass(frozen=True)
class Place:
    """Tensors that share their channels' scales, and who writes and reads them.

    clips: the Clip nodes on the way by name, with their upper bounds (the 6 of ReLU6).
    """

    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]
    clips: tuple[tuple[str, float], ...]

    @property
    def bound(self) -> float:
        """The smallest upper bound, infinite where there is none."""
        return min((bound for _, bound in self.clips), default=np.inf)


def equalize(model: onnx.ModelProto, peaks: Mapping[str, Float32s]) -> onnx.ModelProto:
    """An equalized copy of the float graph.

    `peaks`: tensor → max|x_c| over images, (C,), for every tensor a layer reads.
    """
    values = {name: array.astype(np.float64) for name, array in constants(model).items()}
    found = places(model)
    for place in found:
        peak = peak_of(place, peaks)
        factor = _factor(place, peak).clip(1 / LARGEST_STEP, LARGEST_STEP)
        rescale(place, _bounded(factor, place, peak), values)
    return with_weights(model, found, values)


def with_weights(
    model: onnx.ModelProto, found: Sequence[Place], values: Mapping[str, Float64s]
) -> onnx.ModelProto:
    """A copy of the graph with the new weights and biases of all layers at these places."""
    touched = [layer for place in found for layer in (*place.writers, *place.readers)]
    names = {name for layer in touched for name in (layer.weight, layer.bias) if name}
    return with_constants(model, {name: values[name].astype(np.float32) for name in names})


def places(model: onnx.ModelProto) -> list[Place]:
    """Where channels can be scaled without changing an answer, in graph order."""
    wiring = wire(model)
    found = layers(model)
    leader = _joined(wiring)
    result = []
    for name in dict.fromkeys(leader[layer.input] for layer in found):
        group = {tensor for tensor, first in leader.items() if first == name}
        writers = tuple(layer for layer in found if layer.output in group)
        readers = tuple(layer for layer in found if layer.input in group)
        clips = _clips(wiring, group)
        known = {layer.name for layer in (*writers, *readers)}
        if clips is not None and writers and _closed(wiring, group, known):
            result.append(Place(writers, readers, clips))
    return result


def _joined(wiring: Wiring) -> dict[str, str]:
    """Tensor → the first of all tensors that share its channels' scales."""
    leader = {tensor: tensor for tensor in wiring.inputs}
    for node in wiring.nodes:
        for tensor in node.output:
            leader[tensor] = tensor
        if node.op_type not in _PASSING:
            continue
        names = {leader[name] for name in (*node.input, *node.output) if name in leader}
        first = next(name for name in leader if name in names)
        for tensor, old in leader.items():
            if old in names:
                leader[tensor] = first
    return leader


def _closed(wiring: Wiring, group: set[str], layer_names: set[str]) -> bool:
    """Whether only layers and passing operators touch these tensors."""
    if group.intersection((*wiring.inputs, *wiring.outputs)):
        return False
    touching = [wiring.producer[tensor] for tensor in group]
    touching += [node for tensor in group for node, _ in wiring.consumers.get(tensor, ())]
    return all(
        node.name in layer_names
        or (
            node.op_type in _PASSING
            and not (node.op_type == "Add" and any(t in wiring.constants for t in node.input))
        )
        for node in touching
    )


def _clips(wiring: Wiring, group: set[str]) -> tuple[tuple[str, float], ...] | None:
    """The Clips in the group with their upper bounds; None if one does not begin at 0."""
    clips = []
    for node in wiring.nodes:
        if node.op_type != "Clip" or node.output[0] not in group:
            continue
        low, high = (
            _constant(wiring, node.input[i] if len(node.input) > i else "") for i in (1, 2)
        )
        if low != 0 or high is None:
            return None
        clips.append((node.name, high))
    return tuple(clips)


def _constant(wiring: Wiring, name: str) -> float | None:
    tensor = wiring.constants.get(name)
    return None if tensor is None else float(numpy_helper.to_array(tensor))


def _factor(place: Place, peak: Float64s) -> Float64s:
    whole = place.bound if np.isfinite(place.bound) else peak.max(initial=0)
    factor = divide(whole, peak)
    if not all(layer.depthwise for layer in place.readers):
        factor = np.sqrt(factor)
    return factor


def _bounded(factor: Float64s, place: Place, peak: Float64s) -> Float64s:
    if not np.isfinite(place.bound):
        return factor
    room = np.sqrt(divide(place.bound, peak))
    return np.where(peak > _NEAR_BOUND * place.bound, 1.0, np.minimum(factor, room))


def peak_of(place: Place, peaks: Mapping[str, Float32s]) -> Float64s:
    """max|x_c| over the tensors that are read at a place, (C,)."""
    return np.asarray(np.max([peaks[layer.input] for layer in place.readers], axis=0), np.float64)


def divide(whole: float, parts: Float64s, nothing: float = 1.0) -> Float64s:
    """The quotient whole / parts, `nothing` where a part is 0."""
    return np.divide(whole, parts, out=np.full_like(parts, nothing), where=parts > 0)


def rescale(place: Place, factor: Float64s, values: dict[str, Float64s]) -> None:
    """Scale every channel of a place by its factor, (C,): rows times it, columns divided by it."""
    for layer in place.writers:
        weight = values[layer.weight]
        values[layer.weight] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        if layer.bias:
            values[layer.bias] = values[layer.bias] * factor
    for layer in place.readers:
        weight = values[layer.weight]
        columns = by_channel(layer, weight) / factor.reshape(layer.group, 1, -1, 1)
        values[layer.weight] = columns.reshape(weight.shape)


def by_channel(layer: Layer, weight: Float64s) -> Float64s:
    """The weight as (group, C_out / group, C_in / group, kh · kw)."""
    return weight.reshape(layer.group, -1, layer.shape[1], layer.shape[2] * layer.shape[3])
