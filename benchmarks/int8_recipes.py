"""What each step of INT8 quantization is worth.

    python benchmarks/int8_recipes.py BUNDLE CALIB DATA [--images 128] [--threads 2] [--json FILE]

BUNDLE holds fp32.onnx; CALIB calibration images; DATA labelled images to judge on, less those that
were calibrated with. One row a recipe, cumulative down the ladder, for each target; then weights
quantized per tensor with and without cross-layer equalization, which is where MobileNetV2
collapses. Columns as in `int8_accuracy.py`, which has whole runs beside other tools.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from int8_setting import Setting, options, read_setting, report
from weight_equalization import equalize_weights

from resdeploy.calibration.graph.layers import bias_of, constants
from resdeploy.calibration.observe.gather import Observations, gather
from resdeploy.calibration.repair.ladder import worst_padded
from resdeploy.calibration.repair.recipes import DraftCache, Measurements, Recipe, build
from resdeploy.calibration.repair.run import logits
from resdeploy.calibration.weights.bias_correction import corrected_bias
from resdeploy.calibration.weights.draft import Draft, Rounding, integers_for, rounded
from resdeploy.calibration.weights.equalize import equalize
from resdeploy.deploy.targets import TARGETS, TENSORRT, Target

_HELD_BATCHES = 4
_FITTING_BATCHES = 8
_ALWAYS_ON: tuple[tuple[str, str, Rounding], ...] = (
    ("min-max ranges, weights to nearest", "minmax", "nearest"),
    ("+ ranges of least squared error", "mse", "nearest"),
    ("+ bias correction", "mse", "corrected"),
    ("+ GPTQ rounding", "mse", "gptq"),
)


def measurements_of(setting: Setting) -> Measurements:
    """As `quantize` makes it: the last images are kept back from calibration."""
    calibrate, held = setting.calibrate[:-_HELD_BATCHES], setting.calibrate[-_HELD_BATCHES:]

    def observed(graph: onnx.ModelProto) -> Observations:
        return gather(graph, lambda: calibrate, sum(map(len, calibrate)), threads=setting.threads)

    plain = observed(setting.model)
    return Measurements(
        observed=plain,
        observe_equalized=lambda: observed(equalize(setting.model, plain.peaks)),
        held=held,
        expected=logits(setting.model.SerializeToString(), "fp32", held, setting.threads),
        fitting=calibrate[:_FITTING_BATCHES],
        threads=setting.threads,
    )


def ladder(setting: Setting, measurements: Measurements) -> Iterator[dict[str, Any]]:
    """Plain rounding, what is always on, then the rungs."""
    observed, cache = measurements.observed, DraftCache()
    for target in TARGETS:
        for name, method, rounding in _ALWAYS_ON:
            began = time.perf_counter()
            draft = Draft(setting.model, target, observed.ranges(method, target))
            draft = rounded(draft, observed.moments, rounding=rounding)
            seconds = time.perf_counter() - began
            yield setting.row(name, draft.graph().SerializeToString(), target.variant, seconds)
        for name, recipe in rungs(target, measurements, cache):
            began = time.perf_counter()
            draft = build(measurements, cache, target, recipe)
            seconds = time.perf_counter() - began
            yield setting.row(name, draft.graph().SerializeToString(), target.variant, seconds)


def rungs(
    target: Target, measurements: Measurements, cache: DraftCache
) -> Iterator[tuple[str, Recipe]]:
    recipe = Recipe()
    if target == TENSORRT:
        recipe = replace(recipe, centre=True)
        yield "+ centred ReLU ranges", recipe
        worst = worst_padded(measurements, build(measurements, cache, target, recipe))
        if worst:
            recipe = replace(recipe, pad=worst)
            yield f"+ {len(worst)} padded layers centred", recipe
    recipe = replace(recipe, sequential_fit=True)
    yield "+ sequential fit", recipe
    yield "the same after equalization", replace(recipe, equalize=True)


def per_tensor(setting: Setting, measurements: Measurements) -> Iterator[dict[str, Any]]:
    """Weights with one scale per tensor: the case that cross-layer equalization was made for."""
    plain, peaks = setting.model, measurements.observed.peaks
    equal = equalize_weights(plain, peaks)
    for name, graph in (
        ("float32 with ReLU for ReLU6", without_upper_bounds(plain)),
        ("float32 equalized for weights per tensor", equal),
    ):
        yield setting.row(name, graph.SerializeToString(), "fp32", 0)
    calibrate = setting.calibrate
    total = sum(map(len, calibrate))
    for name, graph in (("weights per tensor", plain), ("weights per tensor, equalized", equal)):
        found = gather(graph, lambda: calibrate, total, threads=setting.threads)
        draft = Draft(graph, TENSORRT, found.ranges("mse", TENSORRT))
        for what, correct in (("", False), (", + bias correction", True)):
            whole = whole_tensors(draft, found, corrected=correct)
            yield setting.row(name + what, whole.graph().SerializeToString(), "int8", 0)


def without_upper_bounds(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every ReLU6 is a ReLU, as Nagel et al. 2019 have it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type == "Clip":
            node.op_type = "Relu"
            del node.input[1:]
    return copy


def whole_tensors(draft: Draft, found: Observations, *, corrected: bool) -> Draft:
    """The draft with one weight scale for each whole tensor."""
    values = constants(draft.model)
    weights, biases = {}, {}
    for layer in draft.layers:
        weight = values[layer.weight]
        scale = np.full(layer.shape[0], np.abs(weight).max() / 127, np.float32)
        weights[layer.weight] = integers_for(layer, weight, None, TENSORRT, scale)
        biases[layer.name] = corrected_bias(
            bias_of(layer, values),
            layer.rows(weight),
            layer.rows(weights[layer.weight].dequantize()),
            found.moments[layer.name].mean,
        )
    return replace(draft, weights=weights, biases=biases if corrected else {})


def main() -> None:
    arguments = options(__doc__).parse_args()
    setting = read_setting(arguments)
    measurements = measurements_of(setting)
    rows = [
        setting.row("float32", setting.model.SerializeToString(), "fp32", 0),
        *ladder(setting, measurements),
        *per_tensor(setting, measurements),
    ]
    report(setting, rows, arguments.json)


if __name__ == "__main__":
    main()
