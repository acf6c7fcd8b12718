"""Steps of a long command stay on the screen with their durations."""

import re
import sys

import pytest

from resdeploy.deploy.cli.steps import progress_steps


def test_without_a_terminal_each_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_steps() as progress:
        progress("reading", 0, 3)
        progress("reading", 3, 3)
        progress("int8: rounding weights", 0, 0)
        assert capsys.readouterr().err.splitlines()[-1] == "int8: rounding weights"  # has begun
        progress("reading", 0, 1)
    rest = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[0-9.]+ s$", "S", line) for line in rest] == [": S", "reading: S"]


def test_a_step_that_fails_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), progress_steps() as progress:
        progress("reading", 0, 3)
        raise ValueError("broken")
    assert capsys.readouterr().err == "reading: not finished\n"


def test_nothing_where_no_lines_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_steps(lines=False) as progress:
        progress("reading", 0, 3)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_keeps_finished_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress_steps() as progress:
        progress("reading", 0, 3)
        progress("rounding", 1, 3)
    text = capsys.readouterr().err
    assert re.search(r"reading: \d+\.\d s", text) and re.search(r"rounding: \d+\.\d s", text)
