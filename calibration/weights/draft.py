"""A quantized variant before it is written: the float graph, ranges, integers and biases.

`rounded` makes the first draft of a variant from one pass over the images, with what is nearly
free always on: GPTQ rounding and analytic bias correction. Repairs turn a draft into a better one.
"""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import onnx

from resdeploy.calibration.graph.layers import Layer, bias_of, constants, layers
from resdeploy.calibration.graph.placement import QuantPlan, plan
from resdeploy.calibration.graph.qdq import QuantizedWeight, insert_qdq
from resdeploy.calibration.observe.moments import Moments, in_passes
from resdeploy.calibration.ranges.ranges import LARGEST_INT8, Range, half_above
from resdeploy.calibration.weights.bias_correction import corrected_bias
from resdeploy.calibration.weights.gptq import gptq, gptq_bytes, nearest
from resdeploy.calibration.weights.saturation import (
    Pairs,
    clip_pairs,
    exact_scale,
    saturating_pairs,
)
from resdeploy.deploy.arrays import Float32s, Floats
from resdeploy.deploy.machine import cores
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.targets import Target

Rounding = Literal["nearest", "corrected", "gptq"]

# What layers rounded at the same time may take together; the widest take half a GB alone.
_ROUNDING_BYTES = 1 << 28


@dataclass(frozen=True)
class Draft:
    """Everything a quantized graph is made from. Not to be changed in place.

    weights: initializer → integers. biases: node name → bias. float_nodes: names left float.
    floats: initializer → float weight, of layers that stay float and were fitted all the same.
    """

    model: onnx.ModelProto
    target: Target
    ranges: Mapping[str, Range]
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    biases: Mapping[str, Float32s] = field(default_factory=dict)
    float_nodes: tuple[str, ...] = ()
    floats: Mapping[str, Float32s] = field(default_factory=dict)

    @cached_property
    def plan(self) -> QuantPlan:
        """Where quantization goes."""
        return plan(self.model, target=self.target, float_nodes=self.float_nodes)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are quantized, in graph order."""
        names = set(self.plan.weights.values())
        return tuple(layer for layer in layers(self.model) if layer.name in names)

    def left_float(self, nodes: Collection[str]) -> "Draft":
        """The same draft with more nodes left float."""
        return replace(self, float_nodes=tuple(sorted({*self.float_nodes, *nodes})))

    def graph(self, *, half: bool = False, float_weights: bool = False) -> onnx.ModelProto:
        """The quantized graph; `half` is for TensorRT's strong typing (int8-fp16)."""
        names = {layer.name for layer in layers(self.model)} - set(self.float_nodes)
        return insert_qdq(
            self.model,
            self.plan,
            self.ranges,
            {name: w for name, w in self.weights.items() if name in self.plan.weights},
            {name: bias for name, bias in self.biases.items() if name in names},
            floats=self.floats,
            half=half,
            float_weights=float_weights,
        )

    def activations_graph(self) -> onnx.ModelProto:
        """The float graph with quantized activations only: weights and biases as they were."""
        weighted = frozenset((layer.name, 1) for layer in self.layers)
        bare = replace(self.plan, weights={}, edges=self.plan.edges - weighted)
        return insert_qdq(self.model, bare, self.ranges, {}, {})


def rounded(
    draft: Draft,
    moments: Mapping[str, Moments],
    *,
    centres: Mapping[str, float] | None = None,
    rounding: Rounding = "gptq",
    integers: Mapping[str, QuantizedWeight] | None = None,
    peaks: Mapping[str, Float32s] | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Draft:
    """The draft with integers and biases for every quantized layer.

    Args:
        moments: node name → moments of its input in the float graph before centring.
        centres: tensor → constant that centring has taken out of it (see `centre`).
        rounding: "nearest" leaves biases alone, "corrected" corrects them, "gptq" does both well.
        integers: initializer → integers from an earlier draft of the same weights, kept.
        peaks: initializer → max|w| of each channel on the grid it was trained on, (C_out,). To
            nearest on that grid is what the network is; a target that allows it keeps it so.
        threads: layers rounded at the same time (default: all processors), fewer where layers are
            wide. progress: told of every layer.
    """
    values = constants(draft.model)
    grids = {name: _step(peak) for name, peak in (peaks or {}).items() if name in values}
    values |= {name: _on_grid(values[name], grid) for name, grid in grids.items()}
    weights = dict(
        integers or _integers(draft, values, moments, rounding, grids, threads or cores(), progress)
    )
    biases: dict[str, Float32s] = {}
    for layer in draft.layers if rounding != "nearest" else ():
        biases[layer.name] = corrected_bias(
            bias_of(layer, values),
            layer.rows(values[layer.weight]),
            layer.rows(weights[layer.weight].dequantize()),
            moments[layer.name].mean - (centres or {}).get(layer.input, 0.0),
        )
    return replace(draft, weights=weights, biases=biases)


def _integers(
    draft: Draft,
    values: Mapping[str, Float32s],
    moments: Mapping[str, Moments],
    rounding: Rounding,
    grids: Mapping[str, Float32s],
    threads: int,
    progress: Progress,
) -> dict[str, QuantizedWeight]:
    def of(layer: Layer) -> QuantizedWeight:
        scale = None if draft.target.saturates else grids.get(layer.weight)
        # What lies on its grid already has no errors to distribute.
        distributes = rounding == "gptq" and scale is None
        covariance = moments[layer.name].covariance if distributes else None
        return integers_for(layer, values[layer.weight], covariance, draft.target, scale)

    weights: dict[str, QuantizedWeight] = {}
    with ThreadPoolExecutor(threads) as workers:
        for part in in_passes(draft.layers, _ROUNDING_BYTES, size=gptq_bytes):
            for layer, integers in zip(part, workers.map(of, part), strict=True):
                progress("rounding weights", len(weights), len(draft.layers))
                weights[layer.weight] = integers
    return weights


def integers_for(
    layer: Layer,
    weight: Floats,
    covariance: Floats | None,
    target: Target,
    scale: Float32s | None = None,
) -> QuantizedWeight:
    """The weight on the target's grid: by GPTQ with `covariance`, to nearest without.

    For the CPU the scale is chosen, and pairs are kept, so that its fast kernel never saturates.
    """
    if scale is None:
        scale = _scale(layer, weight.astype(np.float32), target)
    rows, steps = layer.rows(weight), scale.astype(np.float64).reshape(layer.group, -1)
    pairs = _pairs(layer, target)
    integers = nearest(rows, steps)
    if covariance is not None:
        integers = gptq(np.asarray(rows, np.float64), covariance, steps, pairs)
    values = integers.reshape(weight.shape).astype(np.int8)
    if target.saturates:
        values = clip_pairs(values.reshape(layer.shape), layer.group).reshape(weight.shape)
    return QuantizedWeight(values, scale)


def _scale(layer: Layer, weight: Float32s, target: Target) -> Float32s:
    if target.saturates:
        return exact_scale(weight.reshape(layer.shape), layer.group)
    steps = _step(np.abs(weight.reshape(len(weight), -1)).max(axis=1))
    return np.array([half_above(step) for step in steps.tolist()], np.float32)


def _step(peak: Float32s) -> Float32s:
    return np.where(peak > 0, peak / LARGEST_INT8, 1).astype(np.float32)


def _on_grid(weight: Float32s, scale: Float32s) -> Float32s:
    """The weight as it was in training: to nearest on the grid of each channel."""
    step = scale.reshape(-1, *[1] * (weight.ndim - 1))
    levels = np.rint(weight / step).clip(-LARGEST_INT8, LARGEST_INT8)
    return np.asarray(levels * step, np.float32)


def _pairs(layer: Layer, target: Target) -> Pairs | None:
    if not target.saturates or layer.depthwise:
        return None
    return saturating_pairs(layer.shape, layer.group)
