"""Labels let a variant pass, send it back up the ladder a few times, or refuse it."""

import numpy as np
import pytest

from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.repair.budget import Budget, Score
from resdeploy.calibration.repair.by_labels import refusal, repair_by_labels
from resdeploy.calibration.repair.ladder import RepairState, first_draft
from resdeploy.calibration.repair.recipes import DraftCache, Measurements
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.metrics.intervals import Interval, Paired
from resdeploy.deploy.targets import CPU
from resdeploy.deploy.verification.accuracy import Accuracy
from tests import builders

_SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[batch, 3, 16, 16] input) => (float[batch, 8] logits)
{
    [first] c1 = Conv (input, w1, b1)
    [relu1] r1 = Relu (c1)
    [second] c2 = Conv (r1, w2, b2)
    [relu2] r2 = Relu (c2)
    [third] c3 = Conv (r2, w3, b3)
    [pool] g = GlobalAveragePool (c3)
    [flatten] logits = Flatten (g)
}
"""
_SHAPES = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (8, 16, 1, 1)}


def _accuracy(lost: int, low: float = 0.5) -> Accuracy:
    """Of 100 images, `lost` are wrong that were right."""
    return Accuracy(100, (), None, counts=Paired(100, lost, 0), drop_ci95=Interval(low, 9.0))


@pytest.fixture(scope="module")
def measurements() -> Measurements:
    random = np.random.default_rng(1)
    weights = {name: random.normal(size=shape) for name, shape in _SHAPES.items()}
    weights |= {f"b{name[1]}": random.normal(size=shape[0]) for name, shape in _SHAPES.items()}
    model = builders.graph_of(_SMALL, weights)
    batches = list(random.standard_normal((3, 8, 3, 16, 16), np.float32))
    plain = gather(model, lambda: batches[:2], 16, threads=1)
    expected = logits(model.SerializeToString(), "fp32", batches[2:], 1)
    return Measurements(plain, lambda: plain, batches[2:], expected, batches[:2], threads=1)


def _repaired(
    measurements: Measurements, first: Accuracy, later: list[Accuracy]
) -> tuple[RepairState, RepairState, int]:
    """The state before and after, and how often accuracy was measured."""
    cache = DraftCache()
    before = first_draft(measurements, cache, CPU, "mse")
    asked: list[RepairState] = []

    def measure(state: RepairState) -> Accuracy:
        asked.append(state)
        return later[len(asked) - 1]

    after = repair_by_labels(
        measurements, cache, before, first, max_drop=1.0, measure=measure, other_ranges=False
    )
    return before, after, len(asked)


def test_a_small_drop_needs_nothing(measurements: Measurements) -> None:
    before, after, asked = _repaired(measurements, _accuracy(1), [])
    assert after is before and asked == 0


def test_without_labels_nothing_is_done(measurements: Measurements) -> None:
    before, after, asked = _repaired(measurements, Accuracy(100, (), None), [])
    assert after is before and asked == 0


@pytest.mark.slow
def test_it_stops_as_soon_as_labels_are_content(measurements: Measurements) -> None:
    before, after, asked = _repaired(measurements, _accuracy(5), [_accuracy(0)])
    assert asked == 1
    assert after.recipe != before.recipe
    assert after.score.sqnr_db > before.score.sqnr_db


def test_it_gives_up_after_three_raises_or_when_nothing_gains(measurements: Measurements) -> None:
    before, after, asked = _repaired(measurements, _accuracy(5), [_accuracy(5)] * 3)
    assert asked <= 3
    assert len(after.steps) > len(before.steps)
    assert after.score.sqnr_db >= before.score.sqnr_db


def test_the_refusal_tells_the_drop_and_its_interval() -> None:
    sentence = refusal(Score(32, 100.0, 30.0), _accuracy(5, low=2.25), 1.0, Budget())
    assert sentence == (
        "top-1 drops by 5.00 points on 100 images (95 % interval from 2.25), more than 1"
    )


def test_chance_is_given_its_due() -> None:
    assert refusal(Score(32, 100.0, 30.0), _accuracy(5, low=0.9), 1.0, Budget()) is None


def test_labels_outweigh_decibels_which_decide_without_them() -> None:
    poor = Score(32, 100.0, 9.0)
    assert refusal(poor, _accuracy(0, low=-1.0), 1.0, Budget()) is None
    unlabelled = Accuracy(100, (), None)
    assert refusal(poor, unlabelled, 1.0, Budget()) == "SQNR is 9.0 dB, less than 15 dB"
