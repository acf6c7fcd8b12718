"""`resdeploy verify` as a CI job runs it: exit codes, files, annotations, one JSON object."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from tests.command import run_command

WriteBundle = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]

_BROKEN = np.array([-0.5, 0, 0], np.float32)
_DOUBTFUL = np.array([-3 * 2 / 255, 0, 0], np.float32)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `resdeploy verify …` in its own folder, outside of any CI unless a variable says so."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    def run_verify(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command("verify", *arguments, folder=tmp_path, environment=variables)

    return run_verify


def test_pass_is_0_failure_is_3_and_every_report_is_written(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
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
    assert "::error title=resdeploy int8 max-drop::top-1 drop is" in done.stderr
    assert "Traceback" not in done.stderr


def test_junit_has_a_case_for_every_gate(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
) -> None:
    weights = {"fp32": identity, "fp16": identity, "int8": identity}
    bundle = write_bundle(tmp_path / "b", weights, bias={"fp16": _DOUBTFUL, "int8": _BROKEN})
    assert run(bundle, "--data", colours, "--junit", "j.xml").returncode == 3
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    # of int8 the drop and that of one class
    assert [s.get("failures") for s in suites.values()] == ["0", "0", "2"]
    assert [s.get("skipped") for s in suites.values()] == ["0", "1", "0"]
    for suite in suites.values():
        assert suite.get("tests") == str(len(suite.findall("testcase")))
    failure = suites["b int8"].find(".//failure")
    assert failure is not None and "limit: 1" in str(failure.get("message"))
    run(bundle, "--data", colours, "--junit", "j.xml", "--strict")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert [suite.get("failures") for suite in root] == ["0", "1", "2"]


def test_markdown_and_xml_survive_hostile_names(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
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
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, run: Run
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    done = run(bundle, "--junit", "missing/j.xml")
    assert done.returncode == 1
    assert done.stderr.startswith("error: missing/j.xml: cannot be written: no folder missing")
    done = run(bundle, "--junit", "same", "--markdown", "same")
    assert done.returncode == 1 and "named for two reports" in done.stderr
    notes = tmp_path / "notes.txt"
    notes.write_text("not a history\n")
    done = run(bundle, "--record", notes)
    assert done.returncode == 1 and "notes.txt: not a history of verifications" in done.stderr
    assert notes.read_text() == "not a history\n"
    done = run(bundle, "--baseline", "missing/b.json", "--update-baseline-if-better")
    assert done.returncode == 1 and "b.json: cannot be written: no folder" in done.stderr
    before = (bundle / "manifest.json").read_bytes()
    done = run(bundle, "--html", bundle / "manifest.json")
    assert done.returncode == 1 and "manifest.json: is a file of the bundle" in done.stderr
    assert (bundle / "manifest.json").read_bytes() == before


def test_wrong_usage_is_2_and_user_errors_are_1(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity})
    assert run(bundle, "--precision", "int4").returncode == 2
    done = run(bundle, "--precision", "int8")
    assert done.returncode == 1 and "no int8 variant in it" in done.stderr
    done = run(bundle, "--max-drop", "1")
    assert done.returncode == 1 and "needs the true classes" in done.stderr
    done = run(tmp_path / "missing.bundle", "--data", colours)
    assert done.returncode == 1 and "no such bundle" in done.stderr


@pytest.mark.slow
def test_a_row_is_as_bad_as_its_worst_check_wherever_it_is_shown(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
) -> None:
    """The drop since a baseline, of which the variant's own reference shows nothing."""
    good = write_bundle(tmp_path / "good.bundle", {"fp32": identity})
    assert run(good, "--data", colours, "--save-baseline", "base.json").returncode == 0
    worse = write_bundle(
        tmp_path / "worse.bundle", {"fp32": identity}, bias={"fp32": 0.4 * _BROKEN}
    )
    files = ("--markdown", "m.md", "--html", "p.html", "--junit", "j.xml")
    done = run(worse, "--data", colours, "--baseline", "base.json", *files)
    assert done.returncode == 3
    closing = done.stdout.splitlines()[-1]
    assert closing == "FAILED 2 of 3 checks: fp32 lost 8.33 points against base.json (limit 1)"
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(" fp32"))
    assert " fail " in line and "+8.33" in line and "base.json" in line
    text = (tmp_path / "m.md").read_text()
    assert closing in text.replace("\\", "") and "| fp32 | ort-cpu | fail |" in text
    page = (tmp_path / "p.html").read_text()
    assert "base.json on 300 images" in done.stdout and "fp32.onnx on ort-cpu on" not in done.stdout
    assert closing in page and "+8.33" in page and 'class="fail">fail</td>' in page
    suites = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert [suite.get("failures") for suite in suites] == ["2"]
    content = json.loads(run(worse, "--data", colours, "--baseline", "base.json", "--json").stdout)
    row = content["variants"]["fp32"]
    assert (content["verdict"], content["reason"]) == ("fail", closing)
    assert (row["verdict"], row["drop_against"]) == ("fail", "base.json")
    assert row["drop"] == pytest.approx(8.33, abs=0.01)


def test_nothing_compared_with_itself_is_called_a_comparison(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
) -> None:
    bundle = write_bundle(tmp_path / "b.bundle", {"fp32": identity})
    alone = Path(shutil.copy(bundle / "fp32.onnx", tmp_path / "alone.onnx"))
    done = run(alone, "--data", colours)
    assert done.returncode == 0 and "200.0" not in done.stdout and "PyTorch" not in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(" fp32"))
    assert line.count("reference") == 4  # drop, agreement, SQNR, difference
    assert done.stdout.splitlines()[-1] == "UNDECIDED 1 of 1 check: nothing to judge fp32 by"


def test_the_table_names_every_variant_and_gate(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": identity})
    done = run(bundle, "--data", colours, "--precision", "fp32,int8")
    assert done.returncode == 0
    for text in ("fp32", "int8", "max-drop", "logits", "95 % interval", "PASSED 5 checks"):
        assert text in done.stdout


def test_an_unlabelled_folder_is_not_checked_and_strict_fails_it_everywhere_alike(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, run: Run
) -> None:
    both = {"fp32": identity, "int8": identity}
    bundle = write_bundle(tmp_path / "b", both)
    done = run(bundle, "--data", colours / "red", "--html", "p.html", "--markdown", "m.md")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("PASSED ") and "1 not checked" in done.stdout
    files = ("--junit", "j.xml", "--markdown", "m.md", "--html", "p.html", "--record", "h.jsonl")
    done = run(bundle, "--data", colours / "red", "--strict", *files)
    closing = done.stdout.splitlines()[-1]
    assert done.returncode == 3
    assert closing.startswith("FAILED 1 of ") and "max-drop not checked: the true" in closing
    assert closing.endswith(", a failure with --strict")
    content = json.loads((bundle / "reports" / "verify.json").read_text())
    line = json.loads((tmp_path / "h.jsonl").read_text())
    assert content["reason"] == line["reason"] == closing
    assert content["verdict"] == line["verdict"] == "fail" and content["strict"]
    assert closing in (tmp_path / "m.md").read_text().replace("\\", "")
    assert f"<h1>{closing}</h1>" in (tmp_path / "p.html").read_text()
    suites = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert sum(int(str(suite.get("failures"))) for suite in suites) == 1
