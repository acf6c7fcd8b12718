"""What `verify` prints: everything in a pipe, what fits on a terminal, the closing line last."""

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cli.verify_output import print_report
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.reports.report import ROW_TITLES, VerifyReport
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def report(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> VerifyReport:
    """fp32 and an int8 that loses a third of the red images."""
    weights = {"fp32": identity, "int8": identity}
    bias = {"int8": np.array([-0.25, 0, 0], np.float32)}
    bundle = write_bundle(tmp_path / "b.bundle", weights, bias=bias)
    return verify(bundle, data=colours, backends=["ort-cpu"])


def _printed(report: VerifyReport, stream: io.StringIO, *, wide: bool = False) -> list[str]:
    with redirect_stdout(stream):
        print_report(report, wide=wide)
    return stream.getvalue().splitlines()


def _plain(lines: list[str]) -> list[str]:
    """Without the codes that make text bold."""
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_a_pipe_gets_every_column_and_every_sentence_in_whole_lines(report: VerifyReport) -> None:
    lines = _printed(report, io.StringIO())
    text = "\n".join(lines)
    assert all(title in text for title in ROW_TITLES)
    assert "\x1b" not in text  # no colours
    for gate in report.gates:
        assert any(
            line.startswith(gate.verdict) and line.endswith(f"{gate.name}: {gate.sentence}")
            for line in lines
        ), gate.name
    assert lines[-1] == report.reason
    assert lines[-2] == f"{report.bundle} compared with {report.reference}"


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_gets_what_fits(
    report: VerifyReport, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    lines = _plain(_printed(report, _Terminal()))
    # a word is never broken, not even the path of a deep folder
    assert max(len(line) for line in lines if str(report.bundle) not in line) <= width
    text = " ".join(" ".join(lines).split())
    assert "left out for want of width: " in text and "(--wide shows all)" in text
    assert report.reason in text
    # what fails is said in full, what passes by its name, in a line for each variant
    failed = next(gate for gate in report.gates if gate.verdict == "fail")
    assert failed.sentence in text
    passed = [gate for gate in report.gates if gate.verdict == "pass"]
    assert len({gate.variant for gate in passed}) == sum(x.startswith("pass ") for x in lines)
    for gate in passed:
        assert gate.sentence not in text and gate.name in text


def test_a_passed_check_never_says_what_a_failed_one_would(
    report: VerifyReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    brief = "int8 was calibrated on images of another kind"
    gate = Gate("calibration-images", "int8", "pass", "as confident as there", 0.1, brief=brief)
    lines = _plain(_printed(replace(report, gates=(gate, gate)), _Terminal()))
    assert "pass         int8: calibration-images (2)" in lines
    assert brief not in "\n".join(lines)


def test_wide_shows_every_column_on_any_terminal(
    report: VerifyReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    text = "\n".join(_plain(_printed(report, _Terminal(), wide=True)))
    assert "left out" not in text
    assert all(gate.sentence in text for gate in report.gates)


def test_verdicts_are_coloured_unless_colours_are_not_wanted(
    report: VerifyReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    red = "\x1b[31m"
    assert any(line.startswith(f"{red}\x1b[1mfail") for line in _printed(report, _Terminal()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any(red in line for line in _printed(report, _Terminal()))
