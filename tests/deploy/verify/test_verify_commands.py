"""`resdeploy verify` as a CI job runs it: exit codes, files, annotations, one JSON object."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

Weights = NDArray[np.float32]
WriteBundle = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]

_MAIN = "from resdeploy.deploy.cli import main; main()"
_BROKEN = np.array([-0.5, 0, 0], np.float32)
_DOUBTFUL = np.array([-3 * 2 / 255, 0, 0], np.float32)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `resdeploy verify …` in its own process and folder."""

    def run_verify(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        outside = {k: v for k, v in os.environ.items() if k != "GITHUB_ACTIONS"}
        return subprocess.run(
            [sys.executable, "-c", _MAIN, "verify", *map(str, arguments)],
            cwd=tmp_path,
            env={**outside, **variables},
            capture_output=True,
            text=True,
        )

    return run_verify


def test_pass_is_0_failure_is_3_and_every_report_is_written(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path, run: Run
) -> None:
    both = {"fp32": identity, "int8": identity}
    good = write_bundle(tmp_path / "good.bundle", both)
    bad = write_bundle(tmp_path / "bad.bundle", both, bias={"int8": _BROKEN})
    assert run(good, "--data", colours).returncode == 0
    files = [tmp_path / name for name in ("j.xml", "m.md", "b.json")]
    done = run(
        bad, "--data", colours, "--json", "--junit", files[0], "--markdown", files[1],
        "--save-baseline", files[2], GITHUB_ACTIONS="true",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["verdict"] == "fail"
    assert all(file.stat().st_size for file in files)
    assert "::error title=resdeploy int8 max-drop::top-1 drops by" in done.stderr
    assert "Traceback" not in done.stderr


def test_junit_has_a_case_for_every_gate(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path, run: Run
) -> None:
    weights = {"fp32": identity, "fp16": identity, "int8": identity}
    bundle = write_bundle(tmp_path / "b", weights, bias={"fp16": _DOUBTFUL, "int8": _BROKEN})
    assert run(bundle, "--data", colours, "--junit", "j.xml").returncode == 3
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert [s.get("failures") for s in suites.values()] == ["0", "0", "1"]
    assert [s.get("skipped") for s in suites.values()] == ["0", "1", "0"]
    for suite in suites.values():
        assert suite.get("tests") == str(len(suite.findall("testcase")))
    failure = suites["b int8"].find(".//failure")
    assert failure is not None and "allowed are 1" in str(failure.get("message"))
    run(bundle, "--data", colours, "--junit", "j.xml", "--strict")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert [suite.get("failures") for suite in root] == ["0", "1", "1"]


def test_markdown_and_xml_survive_hostile_names(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path, run: Run
) -> None:
    labels = ("<script>alert(1)</script>", "a|b`c\x00", "]](x) **b** &amp;")
    bundle = write_bundle(
        tmp_path / "b|`<i>.bundle", {"fp32": identity, "int8": identity},
        labels=labels, bias={"int8": _BROKEN},
    )  # fmt: skip
    data = tmp_path / "data"
    for index, label in enumerate(("red", "green", "blue")):
        shutil.copytree(colours / label, data / str(index))
    done = run(bundle, "--data", data, "--junit", "j.xml", "--markdown", "m.md")
    assert done.returncode == 3, done.stderr
    ElementTree.parse(tmp_path / "j.xml")
    text = (tmp_path / "m.md").read_text()
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "000.png" in line]
    assert rows and all(line.replace("\\|", "").count("|") == 5 for line in rows)


def test_nothing_is_run_when_a_report_could_not_be_written(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, run: Run
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    done = run(bundle, "--junit", "missing/j.xml")
    assert done.returncode == 1
    assert done.stderr.startswith("error: missing/j.xml: cannot be written: no folder missing")
    done = run(bundle, "--junit", "same", "--markdown", "same")
    assert done.returncode == 1 and "named for two reports" in done.stderr


def test_wrong_usage_is_2_and_user_errors_are_1(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path, run: Run
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    assert run(bundle, "--precision", "int4").returncode == 2
    done = run(bundle, "--precision", "int8")
    assert done.returncode == 1 and "no int8 variant in it" in done.stderr
    done = run(bundle, "--max-drop", "1")
    assert done.returncode == 1 and "needs the true classes" in done.stderr
    done = run(tmp_path / "missing.bundle", "--data", colours)
    assert done.returncode == 1 and "no such bundle" in done.stderr


def test_the_table_names_every_variant_and_gate(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path, run: Run
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity})
    done = run(bundle, "--data", colours, "--precision", "fp32,int8")
    assert done.returncode == 0
    for text in ("fp32", "int8", "max-drop", "logits", "95 % interval", "pass: "):
        assert text in done.stdout
