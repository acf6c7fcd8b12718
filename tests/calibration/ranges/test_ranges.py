"""Grids of a range, and the file that keeps ranges with the key of what they depend on."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.calibration.ranges.ranges import (
    Range,
    RangesKey,
    StoredRanges,
    affine_uint8,
    check_covers,
    half_above,
    read_ranges,
    stale_reason,
    symmetric_scale,
    write_ranges,
)
from resdeploy.deploy.errors import CalibrationError

_KEY = RangesKey("g", "p", "q", "mse", "0.1.0")
finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.tuples(finite, finite).map(sorted))
def test_ranges_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, ends: list[float]
) -> None:
    path = tmp_path_factory.mktemp("ranges") / "ranges.json"
    stored = StoredRanges(_KEY, 128, {"int8": {"input": Range(*ends)}, "uint8": {}})
    write_ranges(path, stored)
    assert read_ranges(path) == stored


@given(st.tuples(finite, finite).map(sorted))
def test_grids_reach_the_ends_of_the_range(ends: list[float]) -> None:
    chosen = Range(*ends)
    largest = max(abs(chosen.low), abs(chosen.high))
    scale = float(symmetric_scale(chosen))
    assert scale > 0
    assert 127 * scale >= largest * (1 - 1e-6)
    step, zero = affine_uint8(chosen)
    assert step > 0
    assert 0 <= zero <= 255
    # The zero point is rounded, so either end may lie up to half a step outside.
    assert (255 - zero) * float(step) >= chosen.high - 0.51 * float(step)
    assert -zero * float(step) <= chosen.low + 0.51 * float(step)


def test_after_relu_the_zero_point_is_zero() -> None:
    assert affine_uint8(Range(0.0, 6.0)) == (np.float32(6 / 255), 0)


@pytest.mark.parametrize("ends", [(1, 0), (float("nan"), 1), (0, float("inf"))])
def test_not_a_range(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is not a range"):
        Range(*ends)


@pytest.mark.parametrize("changed", [field.name for field in fields(RangesKey)])
def test_what_changed_is_named(changed: str) -> None:
    assert stale_reason(_KEY, _KEY) is None
    reason = stale_reason(_KEY, replace(_KEY, **{changed: "other"}))
    assert reason is not None
    assert reason.endswith("changed")
    assert changed.rstrip("s") in reason.replace("preprocessing", "preprocess")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format_version": 99}',
        '{"format_version": 2, "key": {}, "images": 1, "grids": {}}',
        '{"format_version": 2, "key": {"graph": "", "images": "", "preprocess": "", "method": "",'
        ' "version": ""}, "images": 1, "grids": {"int8": {"input": [1, NaN]}}}',
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(content)
    with pytest.raises(CalibrationError, match=r"ranges\.json"):
        read_ranges(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="No such file"):
        read_ranges(tmp_path / "ranges.json")


def test_ranges_of_another_graph() -> None:
    with pytest.raises(CalibrationError, match="no range for 1 of 2 tensors, first 'b'"):
        check_covers({"a": Range(0, 1)}, ("a", "b"), "ranges.json")


@given(st.floats(6.2e-5, 6e4))
def test_the_half_above_a_scale_is_the_next_one(scale: float) -> None:
    above = half_above(scale)
    assert above == float(np.float16(above))
    assert float(np.nextafter(np.float16(above), np.float16(0))) < scale <= above


@pytest.mark.parametrize("scale", [0.0, 1e-30, 6e-6, 65504.1, 1e30])
def test_a_scale_that_half_holds_badly_stays(scale: float) -> None:
    assert half_above(scale) == scale
