"""A quantized variant before it is written: the float graph, ranges, integers and biases.

`rounded` makes the first draft of a variant from one pass over the pictures, with what is nearly
free always on: GPTQ rounding and analytic bias correction. Repairs turn a draft into a better one.
"""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx

from resdeploy.calibration.bias_correction import corrected_bias
from resdeploy.calibration.layers import Layer, bias_of, constants, layers
from resdeploy.calibration.moments import Moments
from resdeploy.calibration.plan import PlanTarget, QuantPlan, plan
from resdeploy.calibration.qdq import QdqTarget, QuantizedWeight, insert_qdq
from resdeploy.calibration.ranges import Range
from resdeploy.calibration.rounding import LARGEST, gptq, nearest
from resdeploy.calibration.saturation import Pairs, clip_pairs, exact_scale, saturating_pairs

Rounding = Literal["nearest", "corrected", "gptq"]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

# Layers rounded at the same time: the widest ones take half a GB each.
_LAYERS_AT_ONCE = 2


@dataclass(frozen=True)
class Draft:
    """Everything a quantized graph is made from. Not to be changed in place.

    weights: initializer → integers. biases: node name → bias. float_nodes: names left float.
    """

    model: onnx.ModelProto
    target: PlanTarget
    ranges: Mapping[str, Range]
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    biases: Mapping[str, Floats] = field(default_factory=dict)
    float_nodes: tuple[str, ...] = ()

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
        target: QdqTarget = "tensorrt-fp16" if half else self.target
        names = {layer.name for layer in self.layers}
        return insert_qdq(
            self.model,
            self.plan,
            self.ranges,
            {name: w for name, w in self.weights.items() if name in self.plan.weights},
            {name: bias for name, bias in self.biases.items() if name in names},
            target=target,
            float_weights=float_weights,
        )

    def activations_graph(self) -> onnx.ModelProto:
        """The float graph with quantized activations only: weights and biases as they were."""
        weighted = frozenset((layer.name, 1) for layer in self.layers)
        bare = replace(self.plan, weights={}, edges=self.plan.edges - weighted)
        return insert_qdq(self.model, bare, self.ranges, {}, {}, target=self.target)


def rounded(
    draft: Draft,
    moments: Mapping[str, Moments],
    *,
    taken: Mapping[str, float] | None = None,
    rounding: Rounding = "gptq",
    integers: Mapping[str, QuantizedWeight] | None = None,
) -> Draft:
    """The draft with integers and biases for every quantized layer.

    Args:
        moments: node name → moments of its input in the float graph before centring.
        taken: tensor → constant that centring has taken out of it (see `high_bias`).
        rounding: "nearest" leaves biases alone, "corrected" corrects them, "gptq" does both well.
        integers: initializer → integers from an earlier draft of the same weights, kept.
    """
    values = constants(draft.model)
    weights = dict(integers or _integers(draft, values, moments, rounding))
    biases: dict[str, Floats] = {}
    for layer in draft.layers if rounding != "nearest" else ():
        biases[layer.name] = corrected_bias(
            bias_of(layer, values),
            layer.rows(values[layer.weight]),
            layer.rows(weights[layer.weight].dequantize()),
            moments[layer.name].mean - (taken or {}).get(layer.input, 0.0),
        )
    return replace(draft, weights=weights, biases=biases)


def _integers(
    draft: Draft,
    values: Mapping[str, Floats],
    moments: Mapping[str, Moments],
    rounding: Rounding,
) -> dict[str, QuantizedWeight]:
    def of(layer: Layer) -> QuantizedWeight:
        covariance = moments[layer.name].covariance if rounding == "gptq" else None
        return integers_for(layer, values[layer.weight], covariance, draft.target)

    names = [layer.weight for layer in draft.layers]
    with ThreadPoolExecutor(_LAYERS_AT_ONCE) as workers:
        return dict(zip(names, workers.map(of, draft.layers), strict=True))


def integers_for(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    covariance: Doubles | None,
    target: PlanTarget,
    scale: Floats | None = None,
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
        integers = gptq(rows, covariance, steps, pairs)
    values = integers.reshape(weight.shape).astype(np.int8)
    if target == "cpu":
        values = clip_pairs(values.reshape(layer.shape), layer.group).reshape(weight.shape)
    return QuantizedWeight(values, scale)


def _scale(layer: Layer, weight: Floats, target: PlanTarget) -> Floats:
    if target == "cpu":
        return exact_scale(weight.reshape(layer.shape), layer.group)
    peak = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    return np.where(peak > 0, peak / LARGEST, 1).astype(np.float32)


def _pairs(layer: Layer, target: PlanTarget) -> Pairs | None:
    if target != "cpu" or layer.depthwise:
        return None
    return saturating_pairs(layer.shape, layer.group)
