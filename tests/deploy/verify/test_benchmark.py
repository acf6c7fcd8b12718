"""`resdeploy bench` on a real, tiny bundle: every figure there, JSON that compares with itself."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from resdeploy.deploy.bench_commands import bench as command
from resdeploy.deploy.benchmark import bench
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
