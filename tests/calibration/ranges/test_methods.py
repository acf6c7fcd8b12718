"""Each method does what its formula says, checked against brute force or the known answer."""

import numpy as np
import pytest

from resdeploy.calibration.ranges.methods import CUT_OFF_WEIGHT, METHODS, choose_range
from resdeploy.calibration.ranges.observers import Histogram
from resdeploy.calibration.ranges.ranges import Range, affine_uint8, symmetric_scale
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.specs import RANGE_METHODS
from resdeploy.deploy.targets import Grid

_SHAPE = (16, 8, 16, 16)  # small enough that every value enters the histogram


def _histogram(values: Float32s) -> Histogram:
    histogram = Histogram()
    histogram.update(values)
    return histogram


def _squared_error(values: Float32s, chosen: Range, grid: Grid) -> float:
    """The mean squared error, `CUT_OFF_WEIGHT` times where a value lies beyond the grid."""
    if grid == "int8":
        scale, zero, least = float(symmetric_scale(chosen)), 0, -128
    else:
        step, zero = affine_uint8(chosen)
        scale, least = float(step), 0
    rounded = ((np.rint(values / scale) + zero).clip(least, least + 255) - zero) * scale
    level = values / scale + zero
    weight = np.where((level < least) | (level > least + 255), CUT_OFF_WEIGHT, 1)
    return float((weight * (rounded - values) ** 2).mean())


def _distributions() -> dict[str, Float32s]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(_SHAPE)
    return {
        "normal": normal.astype(np.float32),
        "relu": np.maximum(normal, 0).astype(np.float32),
        "relu6": (4 * normal).clip(0, 6).astype(np.float32),
        "laplace": rng.laplace(size=_SHAPE).astype(np.float32),
        "skewed": (0.5 * normal + rng.exponential(size=_SHAPE)).astype(np.float32),
    }


@pytest.mark.parametrize("name", _distributions())
@pytest.mark.parametrize("grid", ["int8", "uint8"])
def test_least_squares_is_within_two_percent_of_brute_force(name: str, grid: Grid) -> None:
    values = _distributions()[name]
    low, high = float(values.min()), float(values.max())
    got = _squared_error(values, choose_range("mse", _histogram(values), grid), grid)
    lows = [0.0] if low >= 0 else [low * share for share in np.linspace(0.3, 1, 15)]
    if grid == "int8":
        candidates = [Range(-t, t) for t in np.linspace(0.3, 1, 60) * max(-low, high)]
    else:
        candidates = [Range(a, high * t) for a in lows for t in np.linspace(0.3, 1, 30)]
    best = min(_squared_error(values, candidate, grid) for candidate in candidates)
    assert got <= 1.02 * best


def test_every_method_can_be_asked_for() -> None:
    assert set(RANGE_METHODS) == {"auto", *METHODS}


def test_min_max_and_moving() -> None:
    values = np.zeros((4, 2, 3, 3), np.float32)
    values[:, 0, 0, 0] = [1, 2, 3, 10]
    values[:, 1, 0, 0] = [-1, -1, -1, -5]
    histogram = _histogram(values)
    assert choose_range("minmax", histogram, "int8") == Range(-5, 10)
    assert choose_range("moving", histogram, "int8") == Range(-2, 4)


def test_percentile_leaves_out_the_rarest_values() -> None:
    values = np.tile(np.linspace(0, 1, 100_000, dtype=np.float32), (2, 1)).reshape(20, -1)
    values[0, :3] = 1000
    chosen = choose_range("percentile", _histogram(values), "int8")
    assert chosen.high == pytest.approx(1.0, rel=0.01)


def test_entropy_cuts_a_long_thin_tail() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((16, 8000)).astype(np.float32)
    values[0, :4] = 60
    chosen = choose_range("entropy", _histogram(values), "int8")
    assert 3 < chosen.high < 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", ["int8", "uint8"])
@pytest.mark.parametrize("constant", [0.0, 2.5, -3.0, 1e-20])
def test_constant_tensor_is_kept(method: str, grid: Grid, constant: float) -> None:
    values = np.full((3, 4, 5, 5), constant, np.float32)
    chosen = choose_range(method, _histogram(values), grid)
    assert chosen.low == chosen.high == np.float32(constant)
    assert _squared_error(values, chosen, grid) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", ["int8", "uint8"])
def test_tensor_far_from_zero(method: str, grid: Grid) -> None:
    values = -1 - np.random.default_rng(2).random(_SHAPE, np.float32)
    assert _squared_error(values, choose_range(method, _histogram(values), grid), grid) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_of_nothing_but_zeros_leaves_the_extremes(method: str) -> None:
    histogram = Histogram()
    whole, sample = histogram.parts
    values = np.zeros((2, 1, 8, 8), np.float32)
    sample.update(values)
    values[1, 0, 3, 3] = 2.5  # where the sample does not look
    whole.update(values)
    found = choose_range(method, histogram, "uint8")
    assert 0 <= found.low <= found.high <= 2.5
    if method == "entropy":
        assert found == Range(0.0, 2.5)
