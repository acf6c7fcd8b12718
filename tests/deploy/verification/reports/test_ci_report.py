"""JUnit, markdown and annotations: well-formed, escaped, and honest about what is undecided."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.reports.ci_report import annotations, junit, markdown
from resdeploy.deploy.verification.reports.report import VerifyReport
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]

_LABELS = ("red|pipe", "<b>green</b>", "blue")
_STEP = 2 / 255


@pytest.fixture
def check(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> Callable[..., VerifyReport]:
    """A function: verify an INT8 graph that flips nine images, with the given limit."""
    for index, label in enumerate(("red", "green", "blue")):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / str(index)).symlink_to(colours / label)
    bias = {"int8": np.array([-9.5 * _STEP, 0, 0], np.float32)}
    bundle = write_bundle(
        tmp_path / "b", {"fp32": identity, "int8": identity}, bias=bias, labels=_LABELS
    )

    def verified(max_drop: float, *, strict: bool = False) -> VerifyReport:
        return verify(bundle, data=tmp_path / "data", max_drop=max_drop, strict=strict)

    return verified


def _cases(text: str, kind: str) -> list[str]:
    root = ElementTree.fromstring(text)
    return [str(case.get("name")) for case in root.iter("testcase") if case.find(kind) is not None]


def test_junit_counts_what_it_holds(check: Callable[..., VerifyReport]) -> None:
    text = junit(check(3))
    assert _cases(text, "skipped") == ["max-drop"] and _cases(text, "failure") == []
    suites = list(ElementTree.fromstring(text).iter("testsuite"))
    assert [suite.get("name") for suite in suites] == ["b fp32", "b int8"]
    for suite in suites:
        assert int(str(suite.get("tests"))) == len(suite.findall("testcase"))
        assert int(str(suite.get("skipped"))) == len(suite.findall("testcase/skipped"))
    strict = junit(check(3, strict=True))
    assert _cases(strict, "failure") == ["max-drop"] and _cases(strict, "skipped") == []


def test_junit_has_no_two_cases_of_one_name(check: Callable[..., VerifyReport]) -> None:
    report = check(3)
    kept = Gate("as-promised", "int8", "pass", "on the recorded inputs")
    short = Gate("as-promised", "int8", "fail", "on the images")
    text = junit(replace(report, gates=(*report.gates, kept, short)))
    assert _cases(text, "failure") == ["as-promised (2)"]
    names = [str(case.get("name")) for case in ElementTree.fromstring(text).iter("testcase")]
    assert "as-promised" in names


def test_markdown_names_the_changed_predictions_and_escapes_labels(
    check: Callable[..., VerifyReport],
) -> None:
    text = markdown(check(0.1))
    assert text.startswith("## resdeploy verify: fail\n")
    assert "int8: 9 changed predictions" in text
    assert "| red\\|pipe " in text and "\\<b\\>green" in text and "<b>" not in text
    table = [
        line for line in text.splitlines() if line.startswith(("| variant", "| fp32", "|---|"))
    ]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table[:3]}) == 1


def test_annotations_are_errors_or_warnings(check: Callable[..., VerifyReport]) -> None:
    (line,) = annotations(check(3))
    assert line.startswith("::warning title=resdeploy int8 max-drop::top-1 drop is 3.00 points")
    assert "95 %25 interval" in line
    (line,) = annotations(check(0.1))
    assert line.startswith("::error ")
    assert annotations(check(9)) == []
