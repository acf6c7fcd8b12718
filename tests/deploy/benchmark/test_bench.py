"""`bench` on a real, tiny bundle: every figure is there and fits the others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.benchmark.bench import bench
from resdeploy.deploy.errors import BundleError, InputError

WriteBundle = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    return write_bundle(tmp_path / "b", {"fp32": identity, "int8-cpu": identity})


@pytest.mark.slow
def test_all_figures_are_there_and_consistent(bundle: Path) -> None:
    steps: set[str] = set()
    found = bench(
        bundle, backends=["ort-cpu"], batches=(1, 4, 1), seconds=0.05,
        progress=lambda step, done, total: steps.add(step),
    ).to_json()  # fmt: skip
    places = [(r["precision"], r["backend"], r["batch"]) for r in found["results"]]
    assert places == [(p, "ort-cpu", b) for p in ("fp32", "int8") for b in (1, 4)]
    for result in found["results"]:
        assert 0 < result["p50_ms"] <= result["p90_ms"] <= result["p99_ms"]
        low, high = result["p50_ci95_ms"]
        assert low <= result["p50_ms"] <= high
        assert result["images_per_second"] > 0 and result["runs"] >= 20
        assert result["variant"] == {"fp32": "fp32", "int8": "int8-cpu"}[result["precision"]]
        assert isinstance(result["peak_memory_bytes"], int)
    assert set(found["stages_ms"]) == {"decode", "resize_and_normalise", "postprocess"}
    assert set(found["end_to_end_ms"]) == {"fp32@ort-cpu", "int8-cpu@ort-cpu"}
    assert min(found["end_to_end_ms"].values()) > 0
    assert found["machine"]["cpu"] and found["machine"]["threads"] >= 1
    assert "synthetic" in found["images"]
    assert steps == {"opening, measuring memory", "timing", "timing image to classes"}
    json.dumps(found, allow_nan=False)


def test_what_cannot_be_meant_is_refused(bundle: Path) -> None:
    for batches, seconds in (((0,), 1.0), ((), 1.0), ((1,), 0.0)):
        with pytest.raises(InputError, match="above 0"):
            bench(bundle, batches=batches, seconds=seconds)
    with pytest.raises(BundleError, match="no fp16 variant"):
        bench(bundle, precisions=["fp16"], seconds=0.01)
