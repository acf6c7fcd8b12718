"""`resdeploy bench` as a user types it: JSON that compares with itself, and what must be known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cli.bench import bench as command
from resdeploy.deploy.cli.bench import in_words, remarks, row, title
from resdeploy.deploy.errors import InputError

WriteBundle = Callable[..., Path]

_MACHINE: dict[str, Any] = {
    "cpu": "Some CPU", "threads": 2, "cores": 4, "load_average_1min": 0.3, "gpu": None,
    "jetson": None, "power_mode": None, "governor": "performance", "clocks_pinned": None,
}  # fmt: skip
_RESULT: dict[str, Any] = {
    "precision": "int8", "variant": "int8-cpu", "backend": "ort-cpu", "batch": 8, "p50_ms": 4.0,
    "p50_ci95_ms": (3.9, 4.25), "p90_ms": 5.0, "p99_ms": 6.0, "images_per_second": 2000.0,
    "peak_memory_bytes": 103_400_000, "steady": True,
}  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path, write_bundle: WriteBundle, identity: Float32s) -> Path:
    return write_bundle(tmp_path / "b", {"fp32": identity, "int8-cpu": identity})


def _run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.stdout


@pytest.mark.slow
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
    assert [(c["variant"], c["batch"]) for c in found["compared"]] == [("fp32", 2), ("int8-cpu", 2)]
    assert list(found["end_to_end_ms"]) == ["fp32@ort-cpu", "int8-cpu@ort-cpu"]
    assert all(c["ratio_ci95"][0] <= c["ratio"] <= c["ratio_ci95"][1] for c in found["compared"])
    assert "16 images" in found["images"]
    assert "median against the earlier one" in _run(
        bundle, "--seconds", 0.05, "--batch", 2, "--compare", earlier
    )


@pytest.mark.slow
def test_a_result_of_an_earlier_version_compares(bundle: Path) -> None:
    """As they were before memory had a process of its own and clocks were recorded."""
    earlier = bundle.parent / "earlier.json"
    result = {"precision": "fp32", "variant": "fp32", "backend": "ort-cpu", "batch": 1,
              "memory_bytes": 1_000_000, "round_medians_ms": [5.0, 5.1]}  # fmt: skip
    earlier.write_text(json.dumps({"results": [result], "machine": {"cpu": "some"}}))
    text = _run(bundle, "--seconds", 0.01, "--batch", 1, "--compare", earlier, "--json")
    assert [c["precision"] for c in json.loads(text)["compared"]] == ["fp32"]


def test_a_row_says_unknown_where_memory_could_not_be_measured() -> None:
    words = ("int8-cpu", "ort-cpu", "8", "4.00 (3.90 … 4.25)", "5.00", "6.00", "2000.0")
    assert row(_RESULT) == (*words, "103")
    assert row({**_RESULT, "peak_memory_bytes": None}) == (*words, "unknown")


def test_the_title_names_the_machine_and_pinned_clocks() -> None:
    assert title(_MACHINE) == "Some CPU, 2 threads, performance"
    orin = {**_MACHINE, "jetson": "Jetson Orin Nano", "power_mode": "15W", "governor": None}
    assert title({**orin, "clocks_pinned": True}) == (
        "Some CPU, 2 threads, Jetson Orin Nano, 15W, clocks pinned"
    )
    assert "pinned" not in title({**orin, "clocks_pinned": False})


@pytest.mark.parametrize(
    ("machine", "steady", "said"),
    [
        ({}, True, []),
        ({}, False, ["1 of 2 timings were not steady"]),
        ({"clocks_pinned": False}, True, []),  # only a Jetson has the command
        ({"jetson": "Orin", "clocks_pinned": False}, True, ["sudo jetson_clocks"]),
        ({"jetson": "Orin", "clocks_pinned": True}, True, []),
        ({"load_average_1min": 2.1}, True, ["the load was 2.1 on 4 cores"]),
        ({"load_average_1min": None}, True, []),
    ],
)
def test_what_makes_times_doubtful_is_said(
    machine: dict[str, Any], steady: bool, said: list[str]
) -> None:
    results = [_RESULT, {**_RESULT, "steady": steady}]
    found = remarks({"machine": {**_MACHINE, **machine}, "results": results})
    assert len(found) == len(said)
    assert all(words in remark for words, remark in zip(said, found, strict=True))


@pytest.mark.slow
def test_a_chart_is_drawn(bundle: Path, tmp_path: Path) -> None:
    chart = tmp_path / "latency.svg"
    arguments = ("--precision", "fp32", "--seconds", 0.01, "--batch", "1,2", "--chart", chart)
    assert "Some CPU" not in _run(bundle, *arguments)
    assert chart.read_text().startswith("<svg")


@pytest.mark.slow
def test_what_cannot_be_meant_is_refused(bundle: Path, tmp_path: Path) -> None:
    _run(bundle, "--batch", "1,x", code=2)
    _run(bundle, "--batch", "0", code=2)
    _run(bundle, "--seconds", "0", code=2)
    broken = tmp_path / "broken.json"
    for text, reason in (("{", "cannot be read"), ("[]", "not a result"), ("{}", "not a result")):
        broken.write_text(text)
        result = CliRunner().invoke(
            command, [str(bundle), "--seconds", "0.01", "--compare", str(broken)]
        )
        assert isinstance(result.exception, InputError) and reason in str(result.exception)


@pytest.mark.parametrize(
    ("ratio", "interval", "words"),
    [
        (1.08, (0.98, 1.19), "8 % slower (-2 … +19 %): within noise"),
        (1.5, (1.4, 1.6), "50 % slower (+40 … +60 %)"),
        (0.5, (0.45, 0.55), "50 % faster (-55 … -45 %)"),
    ],
)
def test_a_ratio_is_said_in_words(ratio: float, interval: tuple[float, float], words: str) -> None:
    assert in_words({"ratio": ratio, "ratio_ci95": interval}) == words


@pytest.mark.slow
def test_a_smaller_run_never_replaces_a_fuller_one(bundle: Path) -> None:
    _run(bundle, "--seconds", 0.05, "--batch", "1,2")
    kept = bundle / "reports" / "bench.json"
    fuller = kept.read_text()
    _run(bundle, "--seconds", 0.05, "--batch", 1, "--precision", "int8")
    assert kept.read_text() == fuller
    _run(bundle, "--seconds", 0.05, "--batch", 1, "--precision", "int8", "--save", "alone")
    alone = json.loads((bundle / "reports" / "bench-alone.json").read_text())
    assert [result["variant"] for result in alone["results"]] == ["int8-cpu"]
    _run(bundle, "--seconds", 0.05, "--batch", "1,2", "--save", "alone")
    named = (bundle / "reports" / "bench-alone.json").read_text()
    _run(bundle, "--seconds", 0.05, "--batch", 1, "--precision", "int8", "--save", "alone")
    assert (bundle / "reports" / "bench-alone.json").read_text() == named
    _run(bundle, "--save", "../elsewhere", code=2)
    _run(bundle, "--seconds", 0.05, "--batch", "1,2")
    assert kept.read_text() != fuller  # one that times as much does
