"""`resdeploy bench` on a real, tiny bundle: every figure there, JSON that compares with itself."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from resdeploy.deploy import benchmark, conditions
from resdeploy.deploy.bench_commands import bench as command
from resdeploy.deploy.benchmark import bench
from resdeploy.deploy.clocks import Clock
from resdeploy.deploy.errors import InputError

Weights = NDArray[np.float32]
WriteBundle = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Weights) -> Path:
    return write_bundle(tmp_path / "b", {"fp32": identity, "int8-cpu": identity})


def _run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.stdout


def test_all_figures_are_there_and_consistent(bundle: Path) -> None:
    found = bench(bundle, backends=["ort-cpu"], batches=(1, 4), seconds=0.05).to_json()
    places = [(r["precision"], r["backend"], r["batch"]) for r in found["results"]]
    assert places == [(p, "ort-cpu", b) for p in ("fp32", "int8") for b in (1, 4)]
    for result in found["results"]:
        assert 0 < result["p50_ms"] <= result["p90_ms"] <= result["p99_ms"]
        low, high = result["p50_ci95_ms"]
        assert low <= result["p50_ms"] <= high
        assert result["images_per_second"] > 0 and result["runs"] >= 20
    assert set(found["stages_ms"]) == {"decode", "resize_and_normalise", "postprocess"}
    assert set(found["end_to_end_ms"]) == {"fp32@ort-cpu", "int8@ort-cpu"}
    assert found["end_to_end_ms"]["fp32@ort-cpu"] > found["stages_ms"]["decode"]
    assert found["machine"]["cpu"] and found["machine"]["threads"] >= 1
    assert all(20e6 < result["peak_memory_bytes"] < 400e6 for result in found["results"])
    assert "synthetic" in found["pictures"]
    json.dumps(found, allow_nan=False)


def test_a_result_is_kept_in_the_bundle_and_compares_with_the_next(
    bundle: Path, colours: Path
) -> None:
    _run(bundle, "--seconds", 0.05, "--batch", 2)
    kept = bundle / "reports" / "bench.json"
    first = kept.read_text()
    earlier = bundle.parent / "earlier.json"
    earlier.write_text(first)
    text = _run(
        bundle, "--seconds", 0.05, "--batch", 2, "--compare", earlier, "--data", colours, "--json"
    )
    found = json.loads(text)
    assert [(c["precision"], c["batch"]) for c in found["compared"]] == [("fp32", 2), ("int8", 2)]
    assert all(c["ratio_ci95"][0] <= c["ratio"] <= c["ratio_ci95"][1] for c in found["compared"])
    assert "16 pictures" in found["pictures"]
    assert "p50 to the earlier one" in _run(
        bundle, "--seconds", 0.05, "--batch", 2, "--compare", earlier
    )


def test_memory_that_cannot_be_measured_is_said_to_be_unknown(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure_peak_bytes", lambda *_: None)
    text = _run(bundle, "--seconds", 0.01, "--batch", 1)
    assert "peak MB" in text and text.count("unknown") == 2
    kept = json.loads((bundle / "reports" / "bench.json").read_text())
    assert [result["peak_memory_bytes"] for result in kept["results"]] == [None, None]


def test_a_jetson_whose_clocks_are_not_pinned_is_told(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure_peak_bytes", lambda *_: None)
    monkeypatch.setattr(conditions, "jetson_line", lambda: "Jetson Orin Nano")
    monkeypatch.setattr(conditions, "power_mode", lambda: "15W")
    arguments = [str(bundle), "--seconds", "0.01", "--batch", "1"]
    for low_mhz, pinned in ((306.0, False), (624.8, True)):
        clocks = (Clock("gpu", low_mhz, low_mhz, 624.8),)
        monkeypatch.setattr(conditions, "read_clocks", lambda clocks=clocks: clocks)
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0
        assert ("sudo jetson_clocks" in result.stderr) is not pinned
        assert ("Jetson Orin Nano, 15W, clocks pinned" in result.stdout) is pinned
        machine = json.loads((bundle / "reports" / "bench.json").read_text())["machine"]
        assert (machine["power_mode"], machine["clocks_pinned"]) == ("15W", pinned)
        assert machine["clocks"][0]["min_mhz"] == low_mhz


def test_a_result_of_an_earlier_version_compares(bundle: Path) -> None:
    """As they were before memory had a process of its own and clocks were recorded."""
    earlier = bundle.parent / "earlier.json"
    result = {"precision": "fp32", "variant": "fp32", "backend": "ort-cpu", "batch": 1,
              "memory_bytes": 1_000_000, "round_medians_ms": [5.0, 5.1]}  # fmt: skip
    earlier.write_text(json.dumps({"results": [result], "machine": {"cpu": "some"}}))
    text = _run(bundle, "--seconds", 0.01, "--batch", 1, "--compare", earlier, "--json")
    assert [c["precision"] for c in json.loads(text)["compared"]] == ["fp32"]


def test_what_cannot_be_meant_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="above 0"):
        bench(bundle, batches=(0,))
    _run(bundle, "--batch", "1,x", code=2)
    _run(bundle, "--seconds", "0", code=2)
    broken = tmp_path / "broken.json"
    for text, reason in (("{", "cannot be read"), ("[]", "not a result"), ("{}", "not a result")):
        broken.write_text(text)
        result = CliRunner().invoke(
            command, [str(bundle), "--seconds", "0.01", "--compare", str(broken)]
        )
        assert isinstance(result.exception, InputError) and reason in str(result.exception)
