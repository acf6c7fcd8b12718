"""Tango's score test and interval: by hand, by its own definition, and by simulation."""

import numpy as np
import pytest

from resdeploy.deploy.metrics.intervals import Interval, Paired
from resdeploy.deploy.metrics.paired_score import beyond_p, score_interval, score_p


def test_without_a_limit_it_is_mcnemars_statistic() -> None:
    # δ = 0: Z = (b - c) / sqrt(b + c) = 7 / sqrt(11), and the upper tail of the normal beyond 2.11
    assert score_p(Paired(75, 9, 2), 0) == pytest.approx(0.0174, abs=1e-4)


def test_the_interval_ends_where_the_test_turns() -> None:
    for counts in (Paired(75, 9, 2), Paired(20, 0, 0), Paired(40, 0, 4), Paired(100, 30, 1)):
        interval = score_interval(counts)
        assert score_p(counts, interval.low) == pytest.approx(0.025, abs=1e-3)
        assert score_p(counts, interval.high) == pytest.approx(0.975, abs=1e-3)
        assert interval.low <= counts.drop <= interval.high


def test_a_class_at_the_limit_is_rarely_called_worse() -> None:
    random = np.random.default_rng(0)
    draws = random.multinomial(40, (0.12, 0.02, 0.86), 2000)  # a true drop of 10 points
    alarms = np.mean([score_p(Paired(40, int(b), int(c)), 10) < 0.025 for b, c, _ in draws])
    assert 0.005 < alarms < 0.045


def test_any_interval_gives_a_p_that_turns_at_its_end() -> None:
    assert beyond_p(3.0, Interval(1.0, 5.0), 1.0) == pytest.approx(0.025, abs=1e-6)
    assert beyond_p(3.0, Interval(1.0, 5.0), 3.0) == 0.5
    assert beyond_p(0.0, Interval(0.0, 0.0), 1.0) == 1.0
    assert beyond_p(2.0, Interval(2.0, 2.0), 1.0) == 0.0
