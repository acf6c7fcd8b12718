"""Cross-layer equalization of weights, for one weight scale per tensor (Nagel et al. 2019).

`resdeploy` gives every output channel of a weight its own scale, so equalizing weights is worth
nothing to it; what the paper gains without such scales is measured with this. With
r₁, r₂ = max|row c of W₁|, max|column c of W₂|, channel c of the tensor between is scaled by

    t = √(r₂ / r₁)

Weights quantized per tensor need every t. ReLU6 is not homogeneous, so the bound of channel c moves
to 6·t_c, which is exact for every input. The paper drops the 6 instead, which is not: on a
MobileNetV2 trained with it, every fourth answer changes before anything is quantized.

Training with weight decay leaves dead channels, whose rows (or the columns that read them) are all
zero, beside the largest numbers of the whole tensor on their other side, where no gradient ever
came. r₁ = 0 or r₂ = 0 asks for no t; these are scaled down to the largest of the live channels, so
that nothing that does not matter decides the scale of the tensor.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from resdeploy.calibration.graph.layers import Layer, constants
from resdeploy.calibration.weights.equalize import (
    LARGEST_STEP,
    Place,
    by_channel,
    divide,
    peak_of,
    places,
    rescale,
    with_weights,
)
from resdeploy.deploy.arrays import Float32s, Float64s

# Rescaling one pair of layers unsettles its neighbours; in sweeps it settles down.
_SWEEPS = 40
# How far equalizing weights may stretch the range of a tensor: without a limit, channels that are
# all bias and next to no weight grow until nothing else is left of the tensor.
_LARGEST_GROWTH = 2.0


def equalize_weights(model: onnx.ModelProto, peaks: Mapping[str, Float32s]) -> onnx.ModelProto:
    """A copy of the float graph that computes the same with weights of like size.

    `peaks`: tensor → max|x_c| over images, (C,), for every tensor a layer reads.
    """
    values = {name: array.astype(np.float64) for name, array in constants(model).items()}
    found = places(model)
    scales = {place: np.ones(place.writers[0].shape[0]) for place in found}
    for _ in range(_SWEEPS):
        for place in found:
            room = _LARGEST_GROWTH * peak_of(place, peaks).max(initial=0)
            most = divide(room, peak_of(place, peaks) * scales[place], np.inf)
            factor = np.minimum(_weight_factor(place, values), most)
            factor = factor.clip(1 / LARGEST_STEP, LARGEST_STEP)
            rescale(place, factor, values)
            scales[place] = scales[place] * factor
    equal = with_weights(model, found, values)
    _move_bounds(equal, {clip: high * scales[p] for p in found for clip, high in p.clips})
    return equal


def _move_bounds(model: onnx.ModelProto, bounds: Mapping[str, Float64s]) -> None:
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


def _weight_factor(place: Place, values: Mapping[str, Float64s]) -> Float64s:
    written = np.max([_row_peaks(layer, values) for layer in place.writers], axis=0)
    read = np.max([_column_peaks(layer, values) for layer in place.readers], axis=0)
    alive = (written > 0) & (read > 0)
    if not alive.any():
        return np.ones_like(read)
    down = np.minimum(divide(written[alive].max(), written), 1)
    up = np.maximum(read / read[alive].max(), 1)
    equal = np.sqrt(np.divide(read, written, out=np.ones_like(read), where=alive))
    return np.asarray(np.where(alive, equal, np.where(written > 0, down, up)))


def _row_peaks(layer: Layer, values: Mapping[str, Float64s]) -> Float64s:
    return np.asarray(np.abs(values[layer.weight]).reshape(layer.shape[0], -1).max(axis=1))


def _column_peaks(layer: Layer, values: Mapping[str, Float64s]) -> Float64s:
    return np.asarray(np.abs(by_channel(layer, values[layer.weight])).max(axis=(1, 3)).ravel())
