"""The server under everything at once, for seconds instead of minutes; and the trials can fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from serving_soak import Findings, Kind, kinds

_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "serving_soak.py"


@pytest.mark.slow
def test_nothing_is_wrong_under_load_reloads_and_idle_connections(
    tmp_path: Path, flower_bundle: Path, image_folder: Path
) -> None:
    image, report = next(image_folder.iterdir()), tmp_path / "report.json"
    sizes = ("--seconds", "6", "--reloads", "10", "--connections", "1500")
    done = subprocess.run(
        [
            sys.executable,
            str(_SCRIPT),
            str(flower_bundle),
            str(image),
            *sizes,
            "--json",
            str(report),
        ],
        capture_output=True,
        text=True,
    )
    found = json.loads(report.read_text())
    assert done.returncode == 0, found
    assert [found[trial]["wrong"] for trial in ("soak", "reloads", "connections")] == [0, 0, 0]
    statuses = found["soak"]["statuses"]
    assert {"200", "400", "404", "413"} <= {*statuses} <= {"200", "400", "404", "413", "503"}
    assert found["reloads"]["loaded"] == 10 and {*found["reloads"]["statuses"]} == {"200"}
    assert found["connections"]["opened"] == 1500
    assert found["connections"]["files_of_the_server"] < 1000  # of 800 connections
    assert found["connections"]["statuses"]["200"] > 4  # every client got on meanwhile


def test_a_wrong_answer_and_a_wrong_status_are_noticed(
    flower_bundle: Path, image_folder: Path
) -> None:
    found = kinds(flower_bundle, next(image_folder.iterdir()))
    tensor, seen = found[0], Findings()
    good = {"outputs": [{"data": tensor.expected.tolist()}]}
    seen.note(tensor, 200, json.dumps(good).encode())
    assert not seen.wrong
    good["outputs"][0]["data"][0] += 1e-3
    seen.note(tensor, 200, json.dumps(good).encode())
    seen.note(tensor, 500, b"")
    seen.note(Kind("/v1/classify", b"", {}, (400,)), 200, b"{}")
    seen.note(tensor, 503, b"")  # overloaded, which is deliberate
    assert len(seen.wrong) == 3
    assert seen.statuses == {200: 3, 500: 1, 503: 1}
