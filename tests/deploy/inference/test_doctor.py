"""The doctor tries what it reports, and needs nothing but the base installation."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from onnxruntime.capi import build_and_package_info

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.inference import doctor
from resdeploy.deploy.inference.doctor import Finding, examine
from resdeploy.deploy.installation import install_command

_MAIN = "from resdeploy.deploy.cli.main import main; main()"


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
    assert findings["ort-cpu"].detail == "a test run gives the right numbers"
    assert findings["ort-cuda"].works is (cuda_problem() is None)
    for finding in findings.values():
        assert finding.detail and "\n" not in finding.detail
        assert finding.works is not False or finding.advice, finding


@pytest.mark.slow
def test_json_and_table() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, "doctor", "--json"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert all(set(entry) == {"works", "detail", "advice"} for entry in found.values())
    table = subprocess.run([sys.executable, "-c", _MAIN, "doctor"], capture_output=True, text=True)
    assert table.returncode == 0 and "next: resdeploy" in table.stderr
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
        "onnxruntime": "cpu" if cuda_problem() else "runtime",
        "tensorrt": "tensorrt",
    }
    for name, extra in missing.items():
        assert found[name]["works"] is False
        assert found[name]["advice"] == install_command(extra)
    assert found["numpy"]["works"] and found["python"]["works"]
    assert "ort-cpu" not in found


@pytest.mark.parametrize("wins", ["onnxruntime", "onnxruntime-gpu"])
def test_two_packages_of_onnxruntime_are_told_with_the_one_that_runs(
    wins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip leaves it after '.[cpu]' and then '.[export]': two records, one folder."""
    assert "onnxruntime twice" not in {finding.name for finding in doctor.examine()}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        record = tmp_path / f"{name.replace('-', '_')}-1.{len(name)}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.{len(name)}\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(build_and_package_info, "package_name", wins)
    (finding,) = [found for found in doctor.examine() if found.name == "onnxruntime twice"]
    assert finding.works is False and finding.advice is not None
    assert finding.detail == (
        "onnxruntime 1.11 and onnxruntime-gpu 1.15 are both installed and share one folder; "
        f"{wins} is what runs"
    )
    extra = "cpu" if cuda_problem() else "runtime"
    assert finding.advice == (
        f"pip uninstall -y onnxruntime onnxruntime-gpu && {install_command(extra)}"
    )


def test_what_can_be_done_and_what_cannot_with_the_reason_and_the_way() -> None:
    found = {
        name: Finding(name, works, f"{name} found", "get it")
        for name, works in {"onnxruntime": True, "ort-cpu": True, "onnx": False}.items()
    }
    can, cannot = doctor.abilities(found)
    assert can == ["inspect bundles and engines", "predict, verify and bench on the CPU"]
    reasons = {sentence: (because, how) for sentence, because, how in cannot}
    assert reasons["adopt ONNX graphs and quantize to INT8"] == ("onnx: onnx found", "get it")
    assert reasons["export checkpoints"] == ("torch could not be tried", "")
