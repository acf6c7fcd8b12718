"""What commands print survives pipes, odd texts and numbers that JSON does not know."""

import io
import json
import sys

import pytest

from resdeploy.deploy.cli.output import (
    columns_that_fit,
    note,
    print_json,
    print_table,
    print_what_fits,
    progress_bar,
)
from resdeploy.deploy.progress import silent


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"a": [1, 2.5, None], "sqnr_db": float("inf"), "p": float("nan"), "é": "花"}
    print_json(content)
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": [1, 2.5, None], "sqnr_db": None, "p": None, "é": "花"}
    assert "花" in text
    print_json(["caf\udce9"])
    assert json.loads(capsys.readouterr().out) == ["caf\udce9"]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    print_table(("name", ">count"), [("[bold]a", "1"), (long, "22"), ("caf\udce9", "3")])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith("[bold]a") and line.endswith(" 1") for line in lines)
    assert any(long in line for line in lines)
    assert any("caf\\xe9" in line for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as progress:
        assert progress is silent
        progress("step", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_columns_drop_by_importance_until_no_word_is_folded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = ("variant", ">top-1 %", "backend", ">SQNR dB")
    rows = [("int8-cpu", "85.83", "ort-cpu", "28.2")]
    importance = ("top-1 %", "SQNR dB", "backend")
    assert columns_that_fit(columns, rows, importance) == [0, 1, 2, 3]  # no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for width, kept in ((80, [0, 1, 2, 3]), (40, [0, 1, 3]), (25, [0, 1]), (5, [0])):
        monkeypatch.setenv("COLUMNS", str(width))
        assert columns_that_fit(columns, rows, importance) == kept, width
    # a wide column gives its place to a narrow one that is less important
    wide = [("int8-cpu", "85.83", "an-accelerator-of-some-length", "28.2")]
    monkeypatch.setenv("COLUMNS", "40")
    assert columns_that_fit(columns, wide, ("top-1 %", "backend", "SQNR dB")) == [0, 1, 3]
    # and an empty one takes none
    monkeypatch.setenv("COLUMNS", "30")
    empty = [("int8-cpu", "", "ort-cpu", "28.2")]
    assert columns_that_fit(columns, empty, importance) == [0, 3]


def test_what_is_left_out_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, rows = ("variant", ">p50 ms", "backend"), [("int8-cpu", "4.00", "ort-cpu")]
    importance = ("p50 ms", "backend")
    print_what_fits(columns, rows, importance, hint="a pipe has all")
    assert "ort-cpu" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setenv("TERM", "xterm")
    print_what_fits(columns, rows, importance, hint="a pipe has all")
    text = capsys.readouterr().out
    assert "int8-cpu" in text and "4.00" in text and "ort-cpu" not in text
    words = " ".join(text.split())
    assert words.endswith("left out for want of width: backend (a pipe has all)")


def test_a_remark_is_folded_between_words_on_a_terminal_and_a_command_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    remark = "note: nothing guards against a bad checkpoint: compare with an earlier release"
    note(remark)
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    note(remark)
    note(f"next: {remark}", folded=False)
    first, *folded, command = shown.getvalue().splitlines()
    assert first == remark == " ".join(folded) and command == f"next: {remark}"
    assert len(folded) == 3 and max(map(len, folded)) <= 40


def test_a_total_that_is_not_known_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar() as progress:
        progress("reading", 0, 0)
        progress("comparing", 3, 20)
    assert "/?" not in shown.getvalue() and "3/20" in shown.getvalue()
