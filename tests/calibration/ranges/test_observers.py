"""What is remembered depends on the values alone; extremes see all, the histogram a sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from resdeploy.calibration.ranges.methods import METHODS, choose_range
from resdeploy.calibration.ranges.observers import Extremes, Histogram
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.targets import Grid

_GRIDS: tuple[Grid, ...] = ("int8", "uint8")

images = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 12), st.integers(1, 3), st.integers(1, 9)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(values=images, seed=st.integers(0, 99), batch=st.integers(1, 5))
def test_order_and_batch_size_do_not_change_a_range(
    values: Float32s, seed: int, batch: int
) -> None:
    whole, parts = Histogram(), Histogram()
    whole.update(values)
    shuffled = np.random.default_rng(seed).permutation(values)
    for start in range(0, len(shuffled), batch):
        parts.update(shuffled[start : start + batch])
    assert np.array_equal(parts.counts, whole.counts)
    for method in METHODS:
        for grid in _GRIDS:
            assert choose_range(method, parts, grid) == choose_range(method, whole, grid), method


@settings(deadline=None)
@given(values=images)
def test_bins_hold_every_value(values: Float32s) -> None:
    histogram = Histogram()
    histogram.update(values)
    left, right, counts = histogram.bins()
    assert counts.sum() == values.size
    assert (left <= right).all()
    assert left.min() <= values.min() + 1e-30
    assert right.max() >= values.max() - 1e-30
    assert left.min() >= histogram.extremes.low
    assert right.max() <= histogram.extremes.high


def test_sample_is_bounded_while_extremes_see_every_value() -> None:
    values = np.zeros((2, 64, 112, 112), np.float32)
    values[1, 7, 3, 5] = 9.0
    histogram = Histogram()
    histogram.update(values)
    assert 2 * 4096 < histogram.counts.sum() <= 2 * 8192
    assert histogram.extremes.high == 9.0
    assert histogram.extremes.mean_high == 4.5


def test_sample_represents_the_distribution() -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal((8, 32, 56, 56)).astype(np.float32)
    histogram = Histogram()
    histogram.update(values)
    chosen = choose_range("percentile", histogram, "int8")
    expected = np.quantile(np.abs(values), 0.9999)
    # 65 000 of 803 000 values were sampled: the quantile of the rarest 7 is known to some 4 %.
    assert chosen.high == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("observer", [Extremes, Histogram])
def test_not_finite_is_refused(observer: type[Extremes] | type[Histogram], bad: float) -> None:
    values = np.ones((2, 3, 8, 8), np.float32)
    values[1, 2, 3, 4] = bad
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        observer().update(values)
