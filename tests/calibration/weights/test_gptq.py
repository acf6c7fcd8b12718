"""GPTQ is as good as its promise: against plain rounding, and against every rounding there is."""

from itertools import product

import numpy as np
import pytest

from resdeploy.calibration.weights.gptq import gptq, nearest
from resdeploy.calibration.weights.saturation import saturates, saturating_pairs
from resdeploy.deploy.arrays import Float64s, Floats


def _correlated(groups: int, columns: int, seed: int = 0) -> Float64s:
    """Covariances of strongly correlated inputs, as neighbouring pixels are."""
    random = np.random.default_rng(seed)
    factor = random.normal(size=(groups, columns, 2 * columns)) + 2 * random.normal(
        size=(groups, 1, 2 * columns)
    )
    return factor @ factor.transpose(0, 2, 1) / (2 * columns)


def _loss(weight: Float64s, integers: Floats, scale: Float64s, covariance: Float64s) -> float:
    error = weight - scale[:, :, None] * integers
    return float(np.einsum("gok,gkl,gol->", error, covariance, error))


@pytest.mark.parametrize(("groups", "rows", "columns"), [(1, 8, 150), (6, 4, 36), (40, 1, 9)])
def test_gptq_beats_plain_rounding(groups: int, rows: int, columns: int) -> None:
    weight = np.random.default_rng(1).normal(size=(groups, rows, columns))
    scale = np.abs(weight).max(axis=2) / 127
    covariance = _correlated(groups, columns)
    plain = _loss(weight, nearest(weight, scale), scale, covariance)
    careful = gptq(weight, covariance, scale)
    assert _loss(weight, careful, scale, covariance) < 0.7 * plain
    assert np.abs(careful).max() <= 127
    np.testing.assert_array_equal(careful, np.rint(careful))


def test_gptq_is_close_to_the_best_of_all_roundings() -> None:
    random = np.random.default_rng(2)
    shares = []
    for seed in range(20):
        weight = random.normal(size=(1, 1, 6))
        scale = np.full((1, 1), 0.3)
        covariance = _correlated(1, 6, seed)
        down = np.floor(weight / scale[:, :, None])
        best = min(
            _loss(weight, down + np.array(up), scale, covariance)
            for up in product((0, 1), repeat=6)
        )
        found = _loss(weight, gptq(weight, covariance, scale), scale, covariance)
        plain = _loss(weight, nearest(weight, scale), scale, covariance)
        shares.append((found - best) / (plain - best + 1e-9))
    assert np.median(shares) < 0.25


def test_uncorrelated_inputs_leave_plain_rounding() -> None:
    weight = np.random.default_rng(3).normal(size=(2, 5, 12))
    scale = np.abs(weight).max(axis=2) / 127
    covariance = np.broadcast_to(np.eye(12), (2, 12, 12))
    np.testing.assert_array_equal(gptq(weight, covariance, scale), nearest(weight, scale))


@pytest.mark.parametrize("channels", [4, 3])
def test_pairs_never_saturate_and_cost_little(channels: int) -> None:
    shape = (16, channels, 3, 3)
    weight = np.random.default_rng(4).normal(size=(1, 16, channels * 9))
    scale = np.abs(weight).max(axis=2) / 127
    covariance = _correlated(1, channels * 9)
    assert saturates(nearest(weight, scale).reshape(shape).astype(np.int8), 1)
    pairs = saturating_pairs(shape, 1)
    careful = gptq(weight, covariance, scale, pairs)
    assert not saturates(careful.reshape(shape).astype(np.int8), 1)


def test_dead_inputs_are_no_obstacle() -> None:
    weight = np.random.default_rng(5).normal(size=(2, 3, 9))
    scale = np.abs(weight).max(axis=2) / 127
    covariance = _correlated(2, 9)
    covariance[1] = 0
    assert np.isfinite(gptq(weight, covariance, scale)).all()


def test_plain_rounding_in_float32_is_that_in_float64() -> None:
    weight = np.random.default_rng(0).standard_normal((2, 5, 40)).astype(np.float32)
    scale = np.abs(weight).max(axis=2).astype(np.float64) / 100
    found, exact = (nearest(w, scale) for w in (weight, weight.astype(np.float64)))
    assert (found.dtype, exact.dtype) == (np.dtype("f4"), np.dtype("f8"))
    np.testing.assert_array_equal(found, exact)
    assert np.abs(nearest(3 * weight, scale)).max() == 127
