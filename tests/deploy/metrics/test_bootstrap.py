"""Bootstrap intervals of SQNR and of the rise of the calibration error."""

import numpy as np
import pytest

from resdeploy.deploy.metrics.bootstrap import calibration_rise, sqnr_interval


def test_equal_images_leave_no_doubt_and_unequal_ones_do() -> None:
    signal, noise = np.full(50, 100.0), np.ones(50)
    exact = sqnr_interval(signal, noise)
    assert exact.low == pytest.approx(20) and exact.high == pytest.approx(20)
    noise = np.random.default_rng(0).exponential(1, 50)
    interval = sqnr_interval(signal, noise)
    value = 10 * np.log10(signal.sum() / noise.sum())
    # the standard error of a mean of 50 exponentials is 1/sqrt(50), 0.61 dB
    assert interval.low < value < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.61, rel=0.25)
    assert sqnr_interval(signal, noise) == interval


def test_overconfidence_is_seen_and_the_same_answers_are_no_rise() -> None:
    random = np.random.default_rng(1)
    right = random.random(400) < 0.7
    honest, boastful = np.full(400, 0.7), np.full(400, 0.99)
    rise, interval = calibration_rise(honest, right, boastful, right)
    assert rise == pytest.approx(29 - abs(100 * right.mean() - 70), abs=3)
    assert interval.low > 12
    rise, interval = calibration_rise(honest, right, honest, right)
    assert (rise, interval.low, interval.high) == (0, 0, 0)
