"""What commands print survives pipes, odd texts and numbers that JSON does not know."""

import json

import pytest

from resdeploy.deploy.output import print_json, print_table, progress_bar, silent


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
    assert any("caf\\udce9" in line for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as progress:
        assert progress is silent
        progress("step", 1, 2)
    assert capsys.readouterr() == ("", "")
