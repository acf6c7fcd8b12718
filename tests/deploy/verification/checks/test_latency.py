"""Slower than before: decided by intervals, and not checked where times cannot be compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.benchmark.bench import bench
from resdeploy.deploy.bundle.bundle import save_in_bundle
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.latency import (
    latency_gate,
    latency_gates_against,
    read_saved_times,
)
from resdeploy.deploy.verification.verify import verify
from tests.fakes import FakeSession

WriteBundle = Callable[..., Path]

_STEADY = [10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 10.1, 9.9, 10.0]


@pytest.mark.parametrize(
    ("factor", "limit", "verdict"),
    [(1.0, 10, "pass"), (1.3, 10, "fail"), (1.1, 10, "inconclusive")],
)
def test_the_interval_decides(factor: float, limit: float, verdict: str) -> None:
    gate = latency_gate("int8-cpu", [factor * ms for ms in _STEADY], _STEADY, limit)
    assert (gate.verdict, gate.limit) == (verdict, limit)
    assert gate.value == pytest.approx(100 * (factor - 1), abs=1e-6)
    if verdict == "fail":
        assert gate.brief == "int8-cpu is 30 % slower than the saved benchmark (limit 10 % slower)"


@pytest.mark.slow
def test_a_kept_benchmark_is_compared_with_and_a_missing_or_foreign_one_is_not(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    (gate,) = (g for g in verify(bundle, max_slower=1000).gates if g.name == "latency")
    assert gate.verdict == "not checked" and "run resdeploy bench" in gate.sentence
    content = bench(bundle, batches=(1,), seconds=0.05).to_json()
    save_in_bundle(bundle, "bench.json", content)
    report = verify(bundle, max_slower=100_000)
    (gate,) = (g for g in report.gates if g.name == "latency")
    assert (gate.variant, gate.verdict) == ("fp32", "pass")
    content["machine"]["cpu"] = "another CPU"
    save_in_bundle(bundle, "bench.json", content)
    assert "the saved times are of another CPU" in str(read_saved_times(open_model(bundle)))


@pytest.mark.slow
def test_another_release_runs_in_the_same_turns(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    both = {"fp32": identity, "int8": identity}
    new, old = (write_bundle(tmp_path / name, both) for name in ("v2", "v1"))
    report = verify(new, data=colours, against=old, max_slower=100_000)
    found = {g.variant: g for g in report.gates if g.name == "latency"}
    assert {name: g.verdict for name, g in found.items()} == {"fp32": "pass", "int8": "pass"}
    assert (
        " than v1 (95 % interval" in found["int8"].sentence and "in turns" in found["int8"].sentence
    )
    # of a release without int8 only the other variant is timed
    plain = write_bundle(tmp_path / "v0", {"fp32": identity, "fp16": identity})
    gates = latency_gates_against(
        open_model(new), [_candidate("fp32"), _candidate("int8")], open_model(plain), 100_000,
        seconds=0.05,
    )  # fmt: skip
    assert [gate.variant for gate in gates] == ["fp32"]
    (none,) = latency_gates_against(
        open_model(new), [_candidate("int8")], open_model(plain), 10, seconds=0.05
    )
    assert (none.verdict, none.sentence) == ("not checked", "not checked: v0 has none of int8")


def test_rounds_that_drift_together_leave_the_ratio_sharp() -> None:
    """The machine slows down by half while both run: joint rounds still tell 10 % apart."""
    drift = [ms * (1 + k / 20) for k, ms in enumerate(_STEADY)]
    slower = [1.1 * ms for ms in drift]
    assert latency_gate("int8", slower, drift, 5, than="v1.bundle").verdict == "fail"
    assert latency_gate("int8", slower, drift, 5).verdict == "inconclusive"


def _candidate(variant: Literal["fp32", "int8"]) -> Candidate:
    return Candidate(variant, variant, variant, "ort-cpu", FakeSession())
