"""The drop from logits: unbiased, sharper than the count, covered by its interval, and cautious."""

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s, Indices
from resdeploy.deploy.metrics.calibrated_drop import (
    DropEstimate,
    PairedLogits,
    calibrated_drop,
    choose_estimate,
)
from resdeploy.deploy.metrics.intervals import Interval, Paired, drop_interval, paired


def _chances(logits: Float32s) -> Float32s:
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), np.float32)


def _network(images: int, seed: int) -> tuple[Float32s, Indices]:
    """Logits of five classes that are right about 80 % of the time, with their true classes."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2.0, (images, 5)).astype(np.float32)
    chances = _chances(logits).astype(np.float64)
    truth = np.array([random.choice(5, p=p / p.sum()) for p in chances])
    return logits, truth


def _true_drop(logits: Float32s, got: Float32s) -> float:
    """What the drop is on average over all true classes that these images could have."""
    rows, chances = np.arange(len(logits)), _chances(logits)
    return 100 * float((chances[rows, logits.argmax(1)] - chances[rows, got.argmax(1)]).mean())


def _noisy(logits: Float32s, seed: int, size: float = 0.3) -> Float32s:
    noise = np.random.default_rng(seed).normal(0, size, logits.shape)
    return (logits + noise).astype(np.float32)


def _count(pair: PairedLogits) -> Paired:
    right = pair.reference.argmax(axis=1) == pair.truth
    return paired(right, pair.got.argmax(axis=1) == pair.truth)


def test_it_is_the_counts_drop_with_a_fraction_of_its_variance() -> None:
    logits, truth = _network(20_000, 0)
    pair = PairedLogits(logits, _noisy(logits, 1), truth)
    true = _true_drop(pair.reference, pair.got)
    sharp, counted, covered = [], [], 0
    for start in range(0, 20_000, 200):
        part = slice(start, start + 200)
        few = PairedLogits(pair.reference[part], pair.got[part], truth[part])
        found = calibrated_drop(few)
        assert found is not None
        sharp.append(found.drop)
        counted.append(_count(few).drop)
        covered += found.interval.low <= true <= found.interval.high
    # a hundred estimates of a standard error of about 0.5 points each
    assert np.mean(sharp) == pytest.approx(true, abs=0.2)
    assert np.mean(counted) == pytest.approx(true, abs=0.6)
    assert np.var(counted) > 5 * np.var(sharp)
    assert covered >= 92  # of 100, at a nominal 95 %


def test_an_error_that_knows_the_truth_is_seen() -> None:
    logits, truth = _network(2000, 2)
    against = np.zeros_like(logits)
    against[np.arange(2000), truth] = -1.0  # every true class is held back
    pair = PairedLogits(logits, logits + against, truth)
    found, counts = calibrated_drop(pair), _count(pair)
    assert found is not None and counts.drop > 10
    assert found.drop == pytest.approx(counts.drop, abs=2.5)


def test_its_interval_holds_where_its_model_of_the_truth_is_wrong() -> None:
    """Classes with scales and biases of their own, which the fit does not know of: as the labels of
    CIFAR-10 are to a real network. Four errors, two of them the same for every image."""
    images, few = 16_000, 800
    logits, _ = _network(images, 5)
    random = np.random.default_rng(8)
    shifted = logits * random.uniform(0.7, 1.3, 5) + random.normal(0, 0.7, 5)
    chances = _chances(shifted.astype(np.float32)).astype(np.float64)
    truth = (random.random((images, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(0, 4)
    rows, covered = np.arange(images), []
    for number in range(4):
        noise = random.normal(0, 0.2, (1 if number < 2 else images, 5))
        got = np.asarray(logits + noise, np.float32)
        changes = chances[rows, logits.argmax(axis=1)] - chances[rows, got.argmax(axis=1)]
        hits = 0
        for start in range(0, images, few):
            part = slice(start, start + few)
            found = calibrated_drop(PairedLogits(logits[part], got[part], truth[part]))
            assert found is not None
            hits += found.interval.low <= 100 * changes.mean() <= found.interval.high
        covered.append(100 * hits * few / images)
    assert min(covered) >= 90  # of 20 each, at a nominal 95 %; 80 without the term for the misfit


def test_a_lone_change_is_not_trusted_to_cost_nothing() -> None:
    """One of 400 answers changes, between two classes that the model takes for equally likely."""
    logits, truth = _network(400, 10)
    got = _noisy(logits, 3, size=0.01)
    assert (logits.argmax(axis=1) != got.argmax(axis=1)).sum() == 1
    found = calibrated_drop(PairedLogits(logits, got, truth))
    assert found is not None and abs(found.drop) < 0.01
    # one imagined change each way, of 0.2; by the sizes that were seen it would be 0.06
    assert found.interval.high - found.drop >= 100 * 1.96 * np.sqrt(2) * 0.2 / 400


def test_equal_networks_leave_no_doubt() -> None:
    logits, truth = _network(100, 3)
    found = calibrated_drop(PairedLogits(logits, logits, truth), reach=0.0)
    assert found is not None and found.interval == Interval(0, 0)


def test_it_declines_what_it_cannot_know() -> None:
    logits, truth = _network(100, 4)
    assert calibrated_drop(PairedLogits(logits[:20], logits[:20], truth[:20])) is None
    always = logits.argmax(axis=1)
    assert calibrated_drop(PairedLogits(logits, logits, always)) is None
    broken = logits.copy()
    broken[3, 0] = np.nan
    assert calibrated_drop(PairedLogits(logits, broken, truth)) is None


def test_the_sharper_one_is_chosen_and_a_contradiction_is_said() -> None:
    counts = Paired(400, 6, 2)
    interval = drop_interval(counts)
    sharp = DropEstimate(0.6, Interval(0.2, 1.0), "calibrated")
    assert choose_estimate(counts, interval, sharp) == sharp
    assert choose_estimate(counts, interval, None).estimator == "count"
    blunt = DropEstimate(0.6, Interval(-9, 10), "calibrated")
    assert choose_estimate(counts, interval, blunt).estimator == "count"
    wrong = DropEstimate(8.0, Interval(7.8, 8.2), "calibrated")
    found = choose_estimate(counts, interval, wrong)
    assert found.estimator == "count" and "the count contradicts" in str(found.remark)
    assert found.drop == 1.0 and found.interval == Interval(interval.low, 8.2)
