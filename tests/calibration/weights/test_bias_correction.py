"""The corrected bias restores the mean of the layer's output exactly."""

import numpy as np

from resdeploy.calibration.weights.bias_correction import corrected_bias

_RANDOM = np.random.default_rng(0)


def test_the_output_keeps_its_mean() -> None:
    weight = _RANDOM.normal(size=(3, 4, 9))
    rounded = np.round(weight, 1)
    bias = _RANDOM.normal(size=12)
    u = _RANDOM.normal(1.0, 1.0, size=(3, 9, 500))
    fixed = corrected_bias(bias, weight, rounded, u.mean(axis=2))
    wanted = (weight @ u).mean(axis=2).ravel() + bias
    np.testing.assert_allclose((rounded @ u).mean(axis=2).ravel() + fixed, wanted, atol=1e-5)
    assert fixed.dtype == np.float32


def test_a_shift_from_the_layers_before_is_taken_out_too() -> None:
    weight = _RANDOM.normal(size=(1, 4, 9))
    rounded = np.round(weight, 1)
    u = _RANDOM.normal(1.0, 1.0, size=(1, 9, 500))
    read = u + 0.3
    fixed = corrected_bias(np.zeros(4), weight, rounded, u.mean(axis=2), read.mean(axis=2))
    wanted = (weight @ u).mean(axis=2).ravel()
    np.testing.assert_allclose((rounded @ read).mean(axis=2).ravel() + fixed, wanted, atol=1e-5)
