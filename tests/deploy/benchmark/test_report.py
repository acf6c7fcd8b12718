"""A result as JSON, and its ratio to an earlier one."""

import pytest

from resdeploy.deploy.benchmark.report import Timed, compare_results
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.metrics.timing import Samples


def _timed(rounds: tuple[tuple[float, ...], ...], batch: int = 4) -> dict[str, object]:
    samples = Samples(rounds, warm_up_runs=10, steady=True)
    return Timed("int8", "int8-cpu", "ort-cpu", batch, samples, 60_000_000).to_json()


def test_figures_by_hand() -> None:
    found = _timed(((8.0, 10.0), (12.0, 10.0)))
    assert (found["p50_ms"], found["runs"], found["warm_up_runs"]) == (10.0, 4, 10)
    assert found["images_per_second"] == 400.0
    assert found["round_medians_ms"] == [9.0, 11.0]
    assert found["peak_memory_bytes"] == 60_000_000


def test_half_the_time_is_a_ratio_of_one_half() -> None:
    ours, theirs = _timed(((5.0, 5.0),) * 4), _timed(((10.0, 10.0),) * 4)
    (row,) = compare_results({"results": [ours]}, {"results": [theirs]})
    assert (row["precision"], row["backend"], row["batch"]) == ("int8", "ort-cpu", 4)
    assert row["ratio"] == 0.5 and row["ratio_ci95"] == [0.5, 0.5]


def test_only_what_both_have_is_compared() -> None:
    ours, theirs = _timed(((5.0, 5.0),), batch=1), _timed(((5.0, 5.0),), batch=8)
    assert compare_results({"results": [ours]}, {"results": [theirs]}) == []
    with pytest.raises(InputError, match="not a result of resdeploy bench --json"):
        compare_results({"results": [ours]}, {"results": [{"precision": "fp32"}]})
