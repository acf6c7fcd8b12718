"""The ladder climbs while the budget is missed, reports every step, and ends with float layers."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from resdeploy.calibration.graph.layers import constants, layers, with_constants
from resdeploy.calibration.observe.gather import Observations, gather
from resdeploy.calibration.repair.budget import Budget
from resdeploy.calibration.repair.ladder import (
    RepairState,
    first_draft,
    repair_variant,
    with_shares,
    worst_padded,
)
from resdeploy.calibration.repair.recipes import DraftCache, Measurements, build, judge
from resdeploy.calibration.repair.run import logits
from resdeploy.calibration.weights.equalize import equalize
from resdeploy.deploy.targets import CPU, TENSORRT

Graphs = Callable[[str], onnx.ModelProto]

_NEVER = Budget(aim_sqnr_db=99.0, aim_sqnr_free_db=99.0, aim_sqnr_fit_db=99.0)
_AT_ONCE = Budget(aim_sqnr_db=0.0, aim_sqnr_free_db=0.0, aim_sqnr_fit_db=0.0, aim_agreement=0.0)


def _measurements(model: onnx.ModelProto) -> Measurements:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    random = np.random.default_rng(1)
    batches = list(random.standard_normal((6, 8, 3, size, size), np.float32))
    calibrate, held = batches[:4], batches[4:]

    def observed(graph: onnx.ModelProto) -> Observations:
        return gather(graph, lambda: calibrate, 32, threads=1)

    plain = observed(model)
    return Measurements(
        plain,
        lambda: observed(equalize(model, plain.peaks)),
        held,
        logits(model.SerializeToString(), "fp32", held, 1),
        calibrate[:2],
        threads=1,
    )


@pytest.fixture(scope="module")
def measurements(float_graph: Graphs) -> Measurements:
    model = float_graph("cifar_resnet8")
    _stretch_a_channel(model)
    return _measurements(model)


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


def test_a_budget_that_is_met_needs_no_repair(measurements: Measurements) -> None:
    cache = DraftCache()
    first = first_draft(measurements, cache, TENSORRT, "mse")
    assert repair_variant(measurements, cache, first, _AT_ONCE) == first
    assert not first.recipe.sequential_fit and not first.recipe.float


@pytest.fixture(scope="module")
def repaired(measurements: Measurements) -> RepairState:
    cache = DraftCache()
    first = first_draft(measurements, cache, TENSORRT, "mse")
    return repair_variant(measurements, cache, first, _NEVER)


@pytest.mark.slow
def test_every_rung_is_tried_and_reported(repaired: RepairState) -> None:
    rungs = [step.rung for step in repaired.steps]
    assert rungs[:4] == ["centre", "sequential_fit", "ranges", "equalize"]
    assert set(rungs[4:]) <= {"float", "sequential_fit"} and "float" in rungs
    for step in repaired.steps:
        gained = step.after.sqnr_db - step.before.sqnr_db
        doubt = {"ranges": 1.5, "centre": -0.8, "sequential_fit": -0.7}  # 16 images judge
        least = doubt.get(step.rung, 0) * 2**0.5 or (0.3 if step.rung == "float" else 0.1)
        assert step.accepted == (gained > least)


def test_the_end_is_as_good_as_the_last_accepted_step_says(
    measurements: Measurements, repaired: RepairState
) -> None:
    accepted = [step for step in repaired.steps if step.accepted]
    assert repaired.score == accepted[-1].after
    assert judge(measurements, repaired.draft) == repaired.score
    assert repaired.score.sqnr_db > accepted[0].before.sqnr_db + 1


def test_few_layers_are_left_float_and_each_gains(repaired: RepairState) -> None:
    floats = repaired.recipe.float
    assert 0 < len(floats) <= _NEVER.most_float
    assert set(floats) <= set(repaired.shares)
    assert set(repaired.draft.plan.skipped) >= set(floats)


@pytest.mark.slow
def test_a_method_that_was_asked_for_is_kept(measurements: Measurements) -> None:
    cache = DraftCache()
    first = first_draft(measurements, cache, CPU, "percentile")
    state = repair_variant(measurements, cache, first, _NEVER, other_ranges=False)
    assert state.recipe.method == "percentile"
    assert "ranges" not in [step.rung for step in state.steps]


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_integers(
    measurements: Measurements, repaired: RepairState
) -> None:
    again = build(measurements, DraftCache(), TENSORRT, repaired.recipe)
    for name, weight in repaired.draft.weights.items():
        np.testing.assert_array_equal(weight.values, again.weights[name].values)


_PADDED = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[batch, 3, 16, 16] input) => (float[batch, 8] logits)
<float zero = {0}, float six = {6}>
{
    [expand] c1 = Conv (input, w1, b1)
    [relu6_1] r1 = Clip (c1, zero, six)
    [depthwise] c2 = Conv <group = 16, pads = [1, 1, 1, 1]> (r1, w2, b2)
    [relu6_2] r2 = Clip (c2, zero, six)
    [project] c3 = Conv (r2, w3, b3)
    [pool] g = GlobalAveragePool (c3)
    [flatten] logits = Flatten (g)
}
"""
_PADDED_SHAPES = {"w1": (16, 3, 1, 1), "w2": (16, 1, 3, 3), "w3": (8, 16, 1, 1)}


def _padded_block() -> onnx.ModelProto:
    """Values on both sides of the padded layer lie about 3: half a symmetric grid is unused."""
    model, random = onnx.parser.parse_model(_PADDED), np.random.default_rng(2)
    values = {name: random.normal(size=shape) for name, shape in _PADDED_SHAPES.items()}
    values["w2"] = 1 / 9 + 0.05 * values["w2"]
    values |= {"b1": np.full(16, 3.0), "b2": np.zeros(16), "b3": np.zeros(8)}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


def test_a_padded_layer_that_errs_most_is_centred_behind_a_pad_node() -> None:
    measurements, cache = _measurements(_padded_block()), DraftCache()
    first = first_draft(measurements, cache, TENSORRT, "minmax")
    free = Budget(aim_sqnr_db=0.0, aim_sqnr_free_db=99.0)
    state = repair_variant(measurements, cache, first, free, other_ranges=False)
    centre, pad = state.steps[:2]
    assert (centre.rung, centre.accepted) == ("centre", True)
    assert (pad.rung, pad.detail, pad.accepted) == ("pad", "depthwise", True)
    assert pad.before == centre.after
    assert pad.after.sqnr_db > pad.before.sqnr_db + 0.5
    assert state.recipe.pad == ("depthwise",)
    assert [node.name for node in state.draft.model.graph.node if node.op_type == "Pad"] == [
        "depthwise.pad"
    ]


def test_nothing_is_padded_that_was_not_centred() -> None:
    measurements, cache = _measurements(_padded_block()), DraftCache()
    first = first_draft(measurements, cache, CPU, "minmax")
    free = Budget(aim_sqnr_db=0.0, aim_sqnr_free_db=99.0)
    state = repair_variant(measurements, cache, first, free, other_ranges=False)
    assert not {"centre", "pad"} & {step.rung for step in state.steps}


def test_no_pad_is_proposed_where_no_padded_layer_errs(measurements: Measurements) -> None:
    # this network has no depthwise layer
    state = first_draft(measurements, DraftCache(), TENSORRT, "mse")
    assert worst_padded(measurements, state.draft) == ()


def test_the_fit_is_tried_where_free_repairs_have_met_their_aim(measurements: Measurements) -> None:
    cache = DraftCache()
    first = first_draft(measurements, cache, CPU, "mse")
    score = first.score.sqnr_db
    only_the_fit = Budget(
        aim_sqnr_db=0.0, aim_sqnr_free_db=0.0, aim_sqnr_fit_db=score + 1, aim_agreement=0.0
    )
    state = repair_variant(measurements, cache, first, only_the_fit)
    assert [step.rung for step in state.steps] == ["sequential_fit"]


def test_shares_are_measured_once(measurements: Measurements, repaired: RepairState) -> None:
    assert with_shares(measurements, repaired) is repaired
    assert repaired.worst == list(repaired.shares)[:3]
