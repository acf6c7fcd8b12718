"""Drafts follow their recipe, and what is costly is built once."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.observe.gather import Observations, gather
from resdeploy.calibration.repair.recipes import DraftCache, Measurements, Recipe, build, judge
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.targets import CPU, TENSORRT

Graphs = Callable[[str], onnx.ModelProto]


class _Equalized:
    """Counts how often the equalized graph is asked for."""

    def __init__(self, plain: Observations) -> None:
        self.plain, self.times = plain, 0

    def __call__(self) -> Observations:
        self.times += 1
        return self.plain


@pytest.fixture(scope="module")
def measurements(float_graph: Graphs) -> Measurements:
    model = float_graph("cifar_resnet8")
    batches = list(np.random.default_rng(1).standard_normal((2, 8, 3, 32, 32), np.float32))
    plain = gather(model, lambda: batches[:1], 8, threads=1)
    expected = logits(model.SerializeToString(), "fp32", batches[1:], 1)
    return Measurements(plain, lambda: plain, batches[1:], expected, batches[:1], threads=1)


def test_integers_are_rounded_once_for_all_range_methods(measurements: Measurements) -> None:
    cache = DraftCache()
    first = build(measurements, cache, TENSORRT, Recipe("mse"))
    other = build(measurements, cache, TENSORRT, Recipe("minmax"))
    assert first.ranges != other.ranges
    for name, weight in first.weights.items():
        assert other.weights[name] is weight
    for_cpu = build(measurements, cache, CPU, Recipe("mse"))
    assert all(for_cpu.weights[name] is not first.weights[name] for name in first.weights)


def test_float_layers_start_from_the_draft_without_them(measurements: Measurements) -> None:
    cache = DraftCache()
    whole = build(measurements, cache, TENSORRT, Recipe())
    name = whole.layers[2].name
    partial = build(measurements, cache, TENSORRT, Recipe(float=(name,)))
    assert partial.float_nodes == (name,)
    assert partial.weights == whole.weights
    assert judge(measurements, partial).images == 8


def test_the_range_of_a_centred_tensor_is_chosen_for_its_256_steps(
    measurements: Measurements,
) -> None:
    padded = tuple(layer.name for layer in layers(measurements.observed.model) if any(layer.pads))
    draft = build(measurements, DraftCache(), TENSORRT, Recipe(centre=True, pad=padded))
    without_signs = measurements.observed.ranges("mse", CPU)
    symmetric = measurements.observed.ranges("mse", TENSORRT)
    centred = {t: r for t, r in draft.ranges.items() if r.low < 0 <= symmetric.get(t, r).low}
    assert len(centred) == 3
    for tensor, spread in centred.items():
        assert spread.high - spread.low == pytest.approx(without_signs[tensor].high)
    assert any(without_signs[t].high != pytest.approx(symmetric[t].high, 0.01) for t in centred)


def test_only_the_draft_to_go_on_from_is_kept(measurements: Measurements) -> None:
    cache = DraftCache()
    for method in ("mse", "minmax"):
        build(measurements, cache, TENSORRT, Recipe(method))
    cache.keep_only(TENSORRT, Recipe("minmax", float=("any",), refit=True))
    assert set(cache.drafts) == {(TENSORRT, Recipe("minmax"))}


def test_the_equalized_graph_is_measured_once_and_only_when_asked(
    measurements: Measurements,
) -> None:
    counted = _Equalized(measurements.observed)
    counting, cache = replace(measurements, observe_equalized=counted), DraftCache()
    cache.observations(counting, Recipe())
    assert counted.times == 0
    for _ in range(2):
        cache.observations(counting, Recipe(equalize=True))
    assert counted.times == 1
