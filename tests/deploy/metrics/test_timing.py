"""Timing in turns: what is run how often, and that the intervals mean what they say."""

import time
from functools import partial

import numpy as np
import pytest

from resdeploy.deploy.metrics.timing import Samples, median_interval, ratio_interval, time_in_turns


def _samples(rounds: list[list[float]]) -> Samples:
    return Samples(tuple(map(tuple, rounds)), warm_up_runs=10, steady=True)


def test_every_candidate_is_timed_in_every_round_in_an_order_that_rotates() -> None:
    order: list[int] = []

    def run(number: int) -> None:
        order.append(number)
        time.sleep(0.001)

    candidates = [partial(run, number) for number in range(3)]
    found = time_in_turns(candidates, seconds=0.03, rounds=3)
    assert [len(samples.rounds) for samples in found] == [3, 3, 3]
    assert all(len(runs) >= 2 for samples in found for runs in samples.rounds)
    timed = order[sum(samples.warm_up_runs for samples in found) :]
    first_of_each_slice = [i for k, i in enumerate(timed) if k == 0 or timed[k - 1] != i]
    assert first_of_each_slice == [0, 1, 2, 1, 2, 0, 2, 0, 1]


def test_warm_up_ends_when_two_windows_agree() -> None:
    pauses = iter([0.02] * 5 + [0.002] * 1000)
    calls: list[float] = []

    def run() -> None:
        calls.append(next(pauses))
        time.sleep(calls[-1])

    (samples,) = time_in_turns([run], seconds=0.02, rounds=1)
    assert samples.warm_up_runs >= 10  # so the slow first five are not among the timed ones
    assert len(calls) == samples.warm_up_runs + len(samples.runs)


def test_the_interval_of_the_median_grows_with_the_drift_between_rounds() -> None:
    random = np.random.default_rng(0)
    quiet = _samples([random.normal(10, 0.1, 20).tolist() for _ in range(10)])
    drifting = _samples([random.normal(10 + k, 0.1, 20).tolist() for k in range(10)])
    narrow, wide = median_interval(quiet), median_interval(drifting)
    assert narrow.low <= quiet.percentile_ms(50) <= narrow.high
    assert narrow.high - narrow.low < 0.2 < 2 < wide.high - wide.low


def test_a_ratio_of_the_same_speed_holds_one_and_half_the_time_does_not() -> None:
    random = np.random.default_rng(1)
    ours, same = random.normal(10, 0.3, (2, 20))
    ratio, interval = ratio_interval(list(ours), list(same))
    assert interval.low < 1 < interval.high and ratio == pytest.approx(1, abs=0.05)
    ratio, interval = ratio_interval(list(ours), list(2 * same))
    assert interval.high < 0.6 and ratio == pytest.approx(0.5, abs=0.05)


def test_throughput_and_percentiles_by_hand() -> None:
    samples = _samples([[1.0, 2.0], [3.0, 10.0]])
    assert samples.percentile_ms(50) == 2.5
    assert samples.mean_ms == 4.0
    assert samples.medians_ms == [1.5, 6.5]
