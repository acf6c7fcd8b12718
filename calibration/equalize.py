"""Cross-layer equalization: channels that share one grid are brought to like size, for nothing.

Scaling channel c of a tensor by t_c changes no answer when the rows that write it are multiplied
and the columns that read it divided:

    y = W₂·f(W₁·u + b₁) = (W₂/t)·f(t·W₁·u + t·b₁)          for f(t·x) = t·f(x), t > 0

(Nagel et al. 2019, section 4.1). Which t is best depends on what is quantized with one scale:

    weights       r₁, r₂ = max|row c of W₁|, max|column c of W₂|:   t = √(r₂ / r₁), as in the paper
    activations   m_c = max|x_c| over the pictures:                 t = max(m) / m_c, all of it if
                  the reader is depthwise (its own scale per channel absorbs 1/t), else the square
                  root, since a reader that mixes channels pays in the rounding of its weights

Tensors that an Add joins share one t, so residual stages are equalized as a whole. ReLU6 is not
homogeneous; a channel that stays below 3 on the pictures is taken halfway to 6, t ≤ √(6/m_c), so
that pictures yet unseen still find room below the 6; others keep t = 1. Weights quantized per
tensor need every t: `saturation="follow"` moves the bound of channel c to 6·t_c, which is exact for
every input. The paper drops the 6 instead, which is not: on a MobileNetV2 trained with it, every
fourth answer changes before anything is quantized.

Training with weight decay leaves dead channels, whose rows (or the columns that read them) are all
zero, beside the largest numbers of the whole tensor on their other side, where no gradient ever
came. r₁ = 0 or r₂ = 0 asks for no t; these are scaled down to the largest of the live channels, so
that nothing that does not matter decides the scale of the tensor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from resdeploy.calibration.layers import Layer, constants, layers, with_constants
from resdeploy.calibration.wiring import Wiring, wire

Shared = Literal["activations", "weights"]
Saturation = Literal["keep", "follow"]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

# Operators that pass each channel on by itself, scaled when it is, with the same largest value.
_PASSING = ("Add", "Relu", "Clip", "MaxPool")
# No channel is scaled by more: a nearly dead one would only collect rounding errors.
_LARGEST_STEP = 1e3
# Share of its bound above which a channel is left alone: unseen pictures may bring it there.
_NEAR_BOUND = 0.5
# Rescaling one pair of layers unsettles its neighbours; in sweeps it settles down.
_SWEEPS = 40
# How far equalizing weights may stretch the range of a tensor: without a limit, channels that are
# all bias and next to no weight grow until nothing else is left of the tensor.
_LARGEST_GROWTH = 2.0


@dataclass(frozen=True)
class _Place:
    """Tensors that share their channels' scales: who writes them, who reads them, and the Clip
    nodes on the way by name with their upper bounds (the 6 of ReLU6)."""

    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]
    clips: tuple[tuple[str, float], ...]

    @property
    def bound(self) -> float:
        """The smallest upper bound, infinite where there is none."""
        return min((bound for _, bound in self.clips), default=np.inf)


class ChannelPeaks:
    """An accumulator (see `collect`) of max|x_c| per channel, (C,), and of a picture's size."""

    def __init__(self) -> None:
        self.peaks: Floats = np.zeros(1, np.float32)
        self.size = 0

    def update(self, values: Floats) -> None:
        """Take in a batch (N, C, …)."""
        self.size = values[0].size
        rows = values.reshape(*values.shape[:2], -1)
        highs, lows = rows.max(axis=(0, 2)), rows.min(axis=(0, 2))
        self.peaks = np.maximum(self.peaks, np.maximum(highs, -lows))


def equalize(
    model: onnx.ModelProto,
    peaks: Mapping[str, Floats],
    *,
    shared: Shared = "activations",
    saturation: Saturation = "keep",
) -> onnx.ModelProto:
    """An equalized copy of the float graph; `shared` is what is quantized with one scale.

    Args:
        peaks: tensor → max|x_c| over pictures, (C,), for every tensor a layer reads.
        saturation: "follow" gives every channel its own upper bound, in a Min node before a ReLU.
    """
    values = {name: array.astype(np.float64) for name, array in constants(model).items()}
    places = _places(model)
    scales = {place: np.ones(place.writers[0].shape[0]) for place in places}
    for _ in range(_SWEEPS if shared == "weights" else 1):
        for place in places:
            peak = _peak(place, peaks) * scales[place]
            if shared == "weights":
                room = _LARGEST_GROWTH * _peak(place, peaks).max(initial=0)
                factor = np.minimum(_weight_factor(place, values), _divide(room, peak, np.inf))
            else:
                factor = _activation_factor(place, peak)
            factor = factor.clip(1 / _LARGEST_STEP, _LARGEST_STEP)
            if saturation == "keep":
                factor = _bounded(factor, place, peak)
            _rescale(place, factor, values)
            scales[place] = scales[place] * factor
    touched = [layer for place in places for layer in (*place.writers, *place.readers)]
    names = {name for layer in touched for name in (layer.weight, layer.bias) if name}
    equal = with_constants(model, {name: values[name].astype(np.float32) for name in names})
    if saturation == "follow":
        _move_bounds(equal, {clip: high * scales[p] for p in places for clip, high in p.clips})
    return equal


def _move_bounds(model: onnx.ModelProto, bounds: Mapping[str, Doubles]) -> None:
    """Clip(x, 0, bound) → Relu(Min(x, bounds)) with one bound for each channel, (C,), in place."""
    for index in reversed(range(len(model.graph.node))):
        node = model.graph.node[index]
        if node.name not in bounds:
            continue
        bound, limited = f"{node.name}.bounds", f"{node.name}.limited"
        each = bounds[node.name].astype(np.float32).reshape(1, -1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(each, bound))
        limit = helper.make_node("Min", [node.input[0], bound], [limited], limited)
        node.op_type = "Relu"
        node.input[:] = [limited]
        model.graph.node.insert(index, limit)


def _places(model: onnx.ModelProto) -> list[_Place]:
    wiring = wire(model)
    found = layers(model)
    leader = _joined(wiring)
    places = []
    for name in dict.fromkeys(leader[layer.input] for layer in found):
        group = {tensor for tensor, first in leader.items() if first == name}
        writers = tuple(layer for layer in found if layer.output in group)
        readers = tuple(layer for layer in found if layer.input in group)
        clips = _clips(wiring, group)
        known = {layer.name for layer in (*writers, *readers)}
        if clips is not None and writers and _closed(wiring, group, known):
            places.append(_Place(writers, readers, clips))
    return places


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


def _activation_factor(place: _Place, peak: Doubles) -> Doubles:
    whole = place.bound if np.isfinite(place.bound) else peak.max(initial=0)
    factor = _divide(whole, peak)
    if not all(layer.depthwise for layer in place.readers):
        factor = np.sqrt(factor)
    return factor


def _weight_factor(place: _Place, values: Mapping[str, Doubles]) -> Doubles:
    written = np.max([_row_peaks(layer, values) for layer in place.writers], axis=0)
    read = np.max([_column_peaks(layer, values) for layer in place.readers], axis=0)
    alive = (written > 0) & (read > 0)
    if not alive.any():
        return np.ones_like(read)
    down = np.minimum(_divide(written[alive].max(), written), 1)
    up = np.maximum(read / read[alive].max(), 1)
    equal = np.sqrt(np.divide(read, written, out=np.ones_like(read), where=alive))
    return np.asarray(np.where(alive, equal, np.where(written > 0, down, up)))


def _bounded(factor: Doubles, place: _Place, peak: Doubles) -> Doubles:
    if not np.isfinite(place.bound):
        return factor
    room = np.sqrt(_divide(place.bound, peak))
    return np.where(peak > _NEAR_BOUND * place.bound, 1.0, np.minimum(factor, room))


def _peak(place: _Place, peaks: Mapping[str, Floats]) -> Doubles:
    return np.asarray(np.max([peaks[layer.input] for layer in place.readers], axis=0), np.float64)


def _divide(whole: float, parts: Doubles, nothing: float = 1.0) -> Doubles:
    """whole / parts, `nothing` where a part is 0."""
    return np.divide(whole, parts, out=np.full_like(parts, nothing), where=parts > 0)


def _rescale(place: _Place, factor: Doubles, values: dict[str, Doubles]) -> None:
    for layer in place.writers:
        weight = values[layer.weight]
        values[layer.weight] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        if layer.bias:
            values[layer.bias] = values[layer.bias] * factor
    for layer in place.readers:
        weight = values[layer.weight]
        columns = _by_channel(layer, weight) / factor.reshape(layer.group, 1, -1, 1)
        values[layer.weight] = columns.reshape(weight.shape)


def _row_peaks(layer: Layer, values: Mapping[str, Doubles]) -> Doubles:
    return np.asarray(np.abs(values[layer.weight]).reshape(layer.shape[0], -1).max(axis=1))


def _column_peaks(layer: Layer, values: Mapping[str, Doubles]) -> Doubles:
    return np.asarray(np.abs(_by_channel(layer, values[layer.weight])).max(axis=(1, 3)).ravel())


def _by_channel(layer: Layer, weight: Doubles) -> Doubles:
    """The weight as (group, C_out / group, C_in / group, kh · kw)."""
    return weight.reshape(layer.group, -1, layer.shape[1], layer.shape[2] * layer.shape[3])
