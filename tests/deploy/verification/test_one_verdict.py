"""Terminal, JSON, markdown, JUnit, page, annotations and exit code say the same, whatever it is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.files import sealed
from tests.command import run_command

WriteBundle = Callable[..., Path]

_WORDS = {"pass": "PASSED", "inconclusive": "UNDECIDED", "fail": "FAILED"}
_DECIDED = ("pass", "fail")
_OUTCOMES = (*_DECIDED, "inconclusive", "not checked")
_BADGES = {"pass": "PASS", "inconclusive": "UNDECIDED", "fail": "FAIL"}

# what is asked of a bundle whose INT8 graph loses 3 of 300 images, without --strict and with it
_CASES = {
    "within the limit": (["--max-drop", "9"], "pass", "pass"),
    "about the limit": (["--max-drop", "3"], "inconclusive", "fail"),
    "beyond the limit": (["--max-drop", "0.1"], "fail", "fail"),
    "no classes": ([], "pass", "fail"),
    "no classes, agreement": (["--min-agreement", "92"], "inconclusive", "fail"),
    "forced": (["--max-drop", "9"], "inconclusive", "fail"),
}


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("case", _CASES)
def test_every_output_says_the_same(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path, case: str,
    strict: bool,
) -> None:  # fmt: skip
    options, lenient, strictly = _CASES[case]
    verdict = strictly if strict else lenient
    both, bias = {"fp32": identity, "int8": identity}, np.array([-9.5 * 2 / 255, 0, 0], np.float32)
    bundle = write_bundle(tmp_path / "b", both, bias={"int8": bias})
    if case == "forced":
        file = bundle / "manifest.json"
        calibration = {"calibration": {"refused": {"int8": "it lost 3 points"}}}
        file.write_text(json.dumps(sealed({**json.loads(file.read_text()), **calibration})))
    data = colours / "red" if case.startswith("no classes") else colours
    files = ["--junit", "j.xml", "--markdown", "m.md", "--html", "p.html"]
    done = run_command(
        "verify", bundle, "--data", data, *options, *files, *(["--strict"] if strict else []),
        folder=tmp_path, environment={"GITHUB_ACTIONS": "true"},
    )  # fmt: skip
    kept = json.loads((bundle / "reports" / "verify.json").read_text())
    verdicts = [gate["verdict"] for gate in kept["gates"]]
    reason = done.stdout.splitlines()[-1]
    assert (kept["verdict"], kept["reason"]) == (verdict, reason)
    assert done.returncode == (3 if verdict == "fail" else 0)
    assert reason.startswith(f"{_WORDS[verdict]} ")
    assert (verdict == "fail") == ("fail" in verdicts)
    printed = [line[:12].strip() for line in done.stdout.splitlines() if line[12:13] == " "]
    assert [word for word in printed if word in _OUTCOMES] == verdicts
    assert done.stderr.count("::error ") == verdicts.count("fail")
    assert done.stderr.count("::warning ") == len(verdicts) - sum(map(verdicts.count, _DECIDED))
    _check_files(tmp_path, verdict, reason, verdicts)


def _check_files(folder: Path, verdict: str, reason: str, verdicts: list[str]) -> None:
    words = re.sub(r"\\(.)", r"\1", (folder / "m.md").read_text())
    assert words.startswith(f"## resdeploy verify: {verdict}\n\n**{reason}**\n")
    suites = list(ElementTree.parse(folder / "j.xml").getroot().iter("testsuite"))
    assert sum(int(str(s.get("failures"))) for s in suites) == verdicts.count("fail")
    skipped = verdicts.count("inconclusive") + verdicts.count("not checked")
    assert sum(int(str(s.get("skipped"))) for s in suites) == skipped
    page = (folder / "p.html").read_text()
    assert f'<span class="badge {verdict}">{_BADGES[verdict]}</span>' in page
    assert f"<title>{verdict}: b</title>" in page
    assert f"<h1>{reason.replace(chr(39), '&#39;')}</h1>" in page
