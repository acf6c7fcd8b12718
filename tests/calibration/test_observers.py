"""Merging shards gives the very state, and the very ranges, of one run; memory stays flat."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from resdeploy.calibration.observers import Extremes, Histogram
from resdeploy.calibration.range_choice import METHODS, choose_range
from resdeploy.calibration.ranges import Grid

Pictures = npt.NDArray[np.float32]

pictures = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 12), st.integers(1, 3), st.integers(1, 9)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", ["int8", "uint8"])
@settings(max_examples=60, deadline=None)
@given(values=pictures, cuts=st.lists(st.integers(0, 12), max_size=4), batch=st.integers(1, 5))
def test_merged_shards_give_the_ranges_of_one_run(
    method: str, grid: Grid, values: Pictures, cuts: list[int], batch: int
) -> None:
    whole = Histogram()
    whole.update(values)
    merged = Histogram()
    shards = [shard for shard in np.split(values, sorted(cuts)) if len(shard)]
    for shard in reversed(shards):
        part = Histogram()
        for start in range(0, len(shard), batch):
            part.update(shard[start : start + batch])
        merged.merge(part)
    assert choose_range(method, merged, grid) == choose_range(method, whole, grid)
    assert np.array_equal(merged.counts, whole.counts)


@settings(deadline=None)
@given(values=pictures)
def test_bins_hold_every_value(values: Pictures) -> None:
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
