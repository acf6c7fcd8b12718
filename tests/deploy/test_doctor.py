"""The doctor tries what it reports, and needs nothing but the base installation."""

import json
import subprocess
import sys
from collections.abc import Callable

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.doctor import examine

_MAIN = "from resdeploy.deploy.cli import main; main()"


def test_findings_name_what_works_and_advise_on_the_rest() -> None:
    findings = {finding.name: finding for finding in examine()}
    assert len(findings) == len(examine())
    for name in (
        "python",
        "resdeploy",
        "numpy",
        "pillow",
        "torch",
        "onnx",
        "onnxruntime",
        "ort-cpu",
    ):
        assert findings[name].works is True, findings[name]
    assert findings["ort-cpu"].detail == "warm-up inference right"
    assert findings["ort-cuda"].works is (cuda_problem() is None)
    for finding in findings.values():
        assert finding.detail and "\n" not in finding.detail
        assert finding.works is not False or finding.advice, finding


def test_json_and_table() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, "doctor", "--json"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert all(set(entry) == {"works", "detail", "advice"} for entry in found.values())
    table = subprocess.run([sys.executable, "-c", _MAIN, "doctor"], capture_output=True, text=True)
    assert (table.returncode, table.stderr) == (0, "")
    for name, entry in found.items():
        if name != "gpu":  # its memory in use may change
            assert any(
                name in line and entry["detail"] in line for line in table.stdout.splitlines()
            )


def test_the_base_installation(bare_python: Callable[..., list[str]]) -> None:
    done = subprocess.run(
        [*bare_python(), _MAIN, "doctor", "--json"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    missing = {
        "torch": "export",
        "onnx": "export",
        "onnxruntime": "runtime",
        "tensorrt": "tensorrt",
    }
    for name, extra in missing.items():
        assert found[name]["works"] is False
        assert found[name]["advice"] == f"pip install 'resdeploy[{extra}]'"
    assert found["numpy"]["works"] and found["python"]["works"]
    assert "ort-cpu" not in found
