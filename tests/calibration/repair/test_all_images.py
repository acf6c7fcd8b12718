"""After the judging, recipes learn from all images; their scores stay those of the judging."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.repair import all_images
from resdeploy.calibration.repair.all_images import Refit, refitted
from resdeploy.calibration.repair.budget import Score
from resdeploy.calibration.repair.ladder import RepairState, first_draft
from resdeploy.calibration.repair.recipes import DraftCache, Measurements, Recipe, build, judge
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.targets import CPU, TARGETS, Target

Graphs = Callable[[str], onnx.ModelProto]


@pytest.fixture
def model(float_graph: Graphs) -> onnx.ModelProto:
    return with_biases(float_graph("cifar_resnet8"))


@pytest.fixture
def batches() -> list[Float32s]:
    """Four to calibrate with and two to judge by, whose images are larger."""
    batches = np.random.default_rng(1).standard_normal((6, 4, 3, 32, 32), np.float32)
    batches[4:] *= 2
    return list(batches)


@pytest.fixture
def measurements(model: onnx.ModelProto, batches: list[Float32s]) -> Measurements:
    plain = gather(model, lambda: batches[:4], 16, threads=1)
    expected = logits(model.SerializeToString(), "fp32", batches[4:], 1)
    return Measurements(plain, lambda: plain, batches[4:], expected, batches[:3], threads=1)


def _states(measurements: Measurements, cache: DraftCache) -> dict[Target, RepairState]:
    return {target: first_draft(measurements, cache, target, "mse") for target in TARGETS}


def _refitted(
    measurements: Measurements, *, fit: bool = False
) -> tuple[Refit, dict[Target, Score]]:
    """The states after the refit, and their scores before it."""
    cache = DraftCache()
    states = _states(measurements, cache)
    recipe = Recipe("mse", sequential_fit=fit)
    states = {target: replace(state, recipe=recipe) for target, state in states.items()}
    return refitted(measurements, cache, states), {t: s.score for t, s in states.items()}


def test_the_drafts_are_those_of_one_pass_over_all_images(
    model: onnx.ModelProto, batches: list[Float32s], measurements: Measurements
) -> None:
    refit, _ = _refitted(measurements)
    at_once = replace(measurements, observed=gather(model, lambda: batches, 24, threads=1))
    assert refit.measurements.observed.images == 24
    for target, state in refit.states.items():
        expected = build(at_once, DraftCache(), target, Recipe("mse"))
        assert state.draft.ranges == expected.ranges
        for name, weight in expected.weights.items():
            np.testing.assert_array_equal(state.draft.weights[name].values, weight.values)


def test_scores_stay_those_of_the_judging(measurements: Measurements) -> None:
    refit, before = _refitted(measurements)
    for target, state in refit.states.items():
        assert state.score == before[target]
        assert judge(measurements, state.draft).sqnr_db > state.score.sqnr_db + 3


@pytest.mark.slow
def test_the_sequential_fit_learns_from_images_held_back(
    batches: list[Float32s], measurements: Measurements
) -> None:
    refit, _ = _refitted(measurements, fit=True)
    fitting = refit.measurements.fitting
    assert len(fitting) == len(measurements.fitting)
    for got, expected in zip(fitting, [*batches[4:], batches[0]], strict=True):
        np.testing.assert_array_equal(got, expected)
    again = build(refit.measurements, DraftCache(), CPU, refit.states[CPU].recipe)
    for name, weight in refit.states[CPU].draft.weights.items():
        np.testing.assert_array_equal(weight.values, again.weights[name].values)


def test_the_equalized_graph_learns_too_when_it_is_asked_for(measurements: Measurements) -> None:
    equalized = gather(measurements.observed.model, lambda: measurements.fitting[:1], 4, threads=1)
    refit, _ = _refitted(replace(measurements, observe_equalized=lambda: equalized))
    assert refit.measurements.observe_equalized().images == 4 + 8


def test_a_draft_stays_that_was_better_without(
    measurements: Measurements, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DraftCache()
    states = _states(measurements, cache)
    worse = {Score(8, 100.0, -1.0), Score(8, 100.0, float("nan"))}
    monkeypatch.setattr(all_images, "judge", lambda *_: worse.pop())
    refit = refitted(measurements, cache, states)
    assert all(refit.states[target].draft is states[target].draft for target in TARGETS)
