"""A history: recorded, read, damaged in ways files are damaged, and searched for the first loss."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.verification.reports.history import (
    append_line,
    check_history,
    first_worse,
    history_line,
    read_history,
)
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]

_STEP = 2 / 255


@pytest.fixture
def record(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> Callable[[int], Path]:
    """A function: verify a network that gets so many images wrong, and add it to a history."""
    file = tmp_path / "history.jsonl"

    def run(wrong: int) -> Path:
        bias = {"fp32": np.array([-(wrong + 0.5) * _STEP if wrong else 0, 0, 0], np.float32)}
        bundle = write_bundle(tmp_path / f"{wrong}.bundle", {"fp32": identity}, bias=bias)
        append_line(file, history_line(verify(bundle, data=colours)))
        return file

    return run


@pytest.mark.slow
def test_the_first_run_that_was_worse_beyond_noise_is_found(record: Callable[[int], Path]) -> None:
    for wrong in (6, 2, 4, 30, 40):
        file = record(wrong)
    runs = read_history(file).runs
    assert [run.top1 for run in runs] == pytest.approx([98, 99.33, 98.67, 90, 86.67], abs=0.01)
    worse = first_worse(runs)
    assert worse is not None and (worse.place, worse.best) == (3, 1)
    assert worse.drop == pytest.approx(100 * 28 / 300) and worse.p < 1e-6
    assert first_worse(runs[:3]) is None  # two images more are noise


def test_a_file_cut_in_half_loses_one_run_and_goes_on(record: Callable[[int], Path]) -> None:
    record(2)
    file = record(4)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 100])
    found = read_history(file)
    assert len(found.runs) == 1
    assert found.remarks == ("line 2: cannot be read and was left out",)
    record(6)
    again = read_history(file)
    assert [run.top1 for run in again.runs] == pytest.approx([99.33, 98], abs=0.01)


def test_a_newer_line_is_left_out_and_says_what_to_do(record: Callable[[int], Path]) -> None:
    file = record(2)
    append_line(file, json.dumps({"format_version": 9}))
    (remark,) = read_history(file).remarks
    assert remark.startswith(
        "line 2: format version 9, this resdeploy reads up to 1: renew it with"
    )


def test_a_file_is_tried_before_a_run_is_added(
    tmp_path: Path, record: Callable[[int], Path]
) -> None:
    check_history(tmp_path / "to be made.jsonl")
    assert list(tmp_path.iterdir()) == []
    file = record(2)
    before = file.read_bytes()
    check_history(file)
    assert file.read_bytes() == before
    newer = tmp_path / "newer.jsonl"
    newer.write_text('{"format_version": 9}\n')
    with pytest.raises(InputError, match=r"newer.jsonl: line 1: format version 9, this resdeploy"):
        check_history(newer)
    half = tmp_path / "half.jsonl"
    half.write_bytes(before[: len(before) // 2])
    with pytest.raises(InputError, match=r"cannot be read .*: restore it, or name another file"):
        check_history(half)
    with pytest.raises(InputError, match="cannot be written"):
        check_history(Path("/proc/self/stat"))


def test_what_is_no_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable history: record one with"):
        read_history(tmp_path / "missing.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text('{"a": 1}\n[]\n')
    with pytest.raises(InputError, match="not a history of verifications: line 1: cannot be read"):
        read_history(other)
    with pytest.raises(InputError, match="cannot be written"):
        append_line(tmp_path / "no folder" / "h.jsonl", "{}")
