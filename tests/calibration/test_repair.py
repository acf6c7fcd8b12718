"""The ladder climbs while the budget is missed, reports every step, and ends with float layers."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from resdeploy.calibration.budget import Budget, Score
from resdeploy.calibration.equalize import equalize
from resdeploy.calibration.layers import constants, layers, with_constants
from resdeploy.calibration.recipes import Material, build, judge
from resdeploy.calibration.repair import Climb, climb, first_draft
from resdeploy.calibration.sensitivity import logits
from resdeploy.calibration.statistics import Statistics, gather

Graphs = Callable[[str], onnx.ModelProto]
Floats = npt.NDArray[np.float32]

_NEVER = Budget(aim_sqnr_db=99.0, aim_sqnr_free_db=99.0)
_AT_ONCE = Budget(aim_sqnr_db=0.0, aim_sqnr_free_db=0.0, aim_agreement=0.0)


@pytest.fixture(scope="module")
def material(float_graph: Graphs) -> Material:
    model = float_graph("cifar_resnet8")
    _stretch_a_channel(model)
    random = np.random.default_rng(1)
    batches = list(random.standard_normal((6, 8, 3, 32, 32), np.float32))
    calibrate, held = batches[:4], batches[4:]
    known: dict[bool, Statistics] = {}

    def measure(equalized: bool) -> Statistics:
        if equalized not in known:
            graph = equalize(model, measure(False).peaks) if equalized else model
            known[equalized] = gather(graph, lambda: calibrate, 32, threads=1)
        return known[equalized]

    expected = logits(model.SerializeToString(), "fp32", held, 1)
    return Material(measure, held, expected, calibrate[:2], threads=1)


def _stretch_a_channel(model: onnx.ModelProto) -> None:
    """Make one channel 200 times as large as the others, and the next layer undo it."""
    values = constants(model)
    first, second = layers(model)[1:3]
    assert first.name.endswith("conv1") and second.name.endswith("conv2")
    weight, bias, read = (values[n].copy() for n in (first.weight, first.bias, second.weight))
    weight[0] *= 200
    bias[0] *= 200
    read[:, 0] /= 200
    changed = {first.weight: weight, first.bias: bias, second.weight: read}
    model.CopyFrom(with_constants(model, changed))


def test_a_budget_that_is_met_needs_no_repair(material: Material) -> None:
    here = climb(material, "tensorrt", _AT_ONCE)
    assert here.steps == () and not here.recipe.prefix and not here.recipe.float


def test_no_repair_stays_at_the_first_draft(material: Material) -> None:
    here = climb(material, "cpu", _NEVER, repair=False)
    first = first_draft(material, "cpu", "mse")
    assert here.recipe == first.recipe and here.steps == ()


@pytest.fixture(scope="module")
def climbed(material: Material) -> Climb:
    return climb(material, "tensorrt", _NEVER)


def test_every_rung_is_tried_and_reported(climbed: Climb) -> None:
    rungs = [step.rung for step in climbed.steps]
    assert rungs[:4] == ["centre", "ranges", "prefix", "equalize"]
    assert set(rungs[4:]) <= {"float", "prefix"} and "float" in rungs
    for step in climbed.steps:
        gained = step.after.sqnr_db - step.before.sqnr_db
        assert step.accepted == (gained > (0.3 if step.rung == "float" else 0.1))


def test_the_end_is_as_good_as_the_last_accepted_step_says(
    material: Material, climbed: Climb
) -> None:
    accepted = [step for step in climbed.steps if step.accepted]
    assert climbed.score == accepted[-1].after
    assert judge(material, climbed.draft) == climbed.score
    assert climbed.score.sqnr_db > accepted[0].before.sqnr_db + 1


def test_few_layers_are_left_float_and_each_gains(climbed: Climb) -> None:
    floats = climbed.recipe.float
    assert 0 < len(floats) <= _NEVER.most_float
    assert set(floats) <= set(climbed.shares)
    assert set(climbed.draft.plan.skipped) >= set(floats)


def test_a_method_that_was_asked_for_is_kept(material: Material) -> None:
    here = climb(material, "cpu", _NEVER, method="percentile")
    assert here.recipe.method == "percentile"
    assert "ranges" not in [step.rung for step in here.steps]


def test_the_same_recipe_gives_the_same_integers(material: Material, climbed: Climb) -> None:
    material.drafts.clear()
    again = build(material, "tensorrt", climbed.recipe)
    for name, weight in climbed.draft.weights.items():
        np.testing.assert_array_equal(weight.values, again.weights[name].values)


def test_one_flip_among_few_pictures_is_no_evidence() -> None:
    assert Budget().met(Score(32, 100 * 31 / 32, 30.0), free=True)
    assert not Budget().met(Score(1000, 100 * 31 / 32, 30.0), free=True)


def test_refusal_names_the_figure() -> None:
    assert Budget().refuses(Score(32, 100.0, 25.0)) is None
    assert "SQNR is 9.0 dB" in (Budget().refuses(Score(32, 100.0, 9.0)) or "")
    assert "agreement is 50.0 %" in (Budget().refuses(Score(32, 50.0, 20.0)) or "")
    assert Budget().refuses(Score(32, 100.0, float("nan"))) is not None
