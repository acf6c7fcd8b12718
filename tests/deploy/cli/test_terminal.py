"""Whatever a user's text holds, a terminal shows it and obeys nothing in it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.deploy.cli.output import print_table, say
from resdeploy.deploy.errors import shown
from tests.command import run_command

_CLI = Path(__file__).resolve().parents[3] / "deploy" / "cli"
_ROOT = Path(__file__).resolve().parents[3]
_COMMAND = [sys.executable, "-m", "resdeploy"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("daisy [old]/a.png", "daisy [old]/a.png"),
        ("花 é 👩‍🔬", "花 é 👩‍🔬"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\nerror: forged", r"a\nerror: forged"),
        ("a\rb\tc\x00", r"a\rb\tc\x00"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_harmless_on_one_line(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    line = shown(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202e]", line)
    line.encode()
    assert shown(line) == line


def test_a_line_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * 100_000)
    assert capsys.readouterr().out == "x" * 4000 + "… (100000 characters)\n"


def test_a_table_shows_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        ("photos [old]/a.png", ">x[/b].png"),
        [("[bold]", "\x1b[2J"), ("a\nb", "[/]")],
        title="[red]\x1b]0;t\x07",
    )
    said = capsys.readouterr().out
    for text in ("photos [old]/a.png", "x[/b].png", "[bold]", r"\x1b[2J", r"a\nb", "[/]"):
        assert text in said
    assert r"[red]\x1b]0;t\x07" in said and "\x1b" not in said


def test_there_is_no_other_way_to_print() -> None:
    for file in _CLI.rglob("*.py"):
        if file.name != "output.py":
            assert not re.search(r"click\.s?echo|(?<!\.)\bprint\(", file.read_text()), file


def _run(
    *arguments: str | bytes, redirect: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", *_COMMAND, *arguments],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env={**os.environ, **environment},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirect", "line"),
    [
        (">&-", "error: stdout is closed: nothing can be printed\n"),
        (">/dev/full", "error: stdout cannot be written: No space left on device\n"),
        ("2>/dev/full >/dev/full", ""),
        ("2>&- >&-", ""),
    ],
)
def test_an_output_that_takes_nothing_is_one_line(redirect: str, line: str) -> None:
    done = _run("doctor", "--json", redirect=redirect)
    assert (done.returncode, done.stderr) == (1, line)


def test_names_that_are_not_utf_8_and_a_strict_output() -> None:
    done = _run("inspect", b"/absent/\xff\x1b[31m\n", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 1
    assert done.stderr == "error: /absent/\\xff\\x1b[31m\\n: no such file or folder\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "exit_code"),
    [
        (["inspect", "/absent", "--json"], "InputError", 1),
        (["inspect", "--json"], "MissingParameter", 2),
        (["verify", "/absent", "--json"], "BundleError", 1),
        (["predict", "/absent", "a.jpg", "--json"], "BundleError", 1),
        (["bench", "/absent", "--json", "--seconds", "nan"], "BadParameter", 2),
    ],
)
def test_an_error_is_json_too_where_json_was_asked_for(
    arguments: list[str], kind: str, exit_code: int
) -> None:
    done = run_command(*arguments)
    assert done.returncode == exit_code
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["exit_code"]) == (kind, exit_code)
    assert done.stderr.splitlines()[-1].lower() == f"error: {error['message']}".lower()


@pytest.mark.slow
def test_no_library_keeps_records_of_its_use(flower_bundle: Path, tmp_path: Path) -> None:
    """ONNX Runtime would make a database and an identifier of the machine below ~/.cache."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [*_COMMAND, "predict", str(flower_bundle), str(_ROOT / "absent.jpg")],
        capture_output=True,
        text=True,
        env={**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
    )
    assert done.returncode == 1 and "no such file" in done.stdout
    assert not list(home.iterdir())


def test_nothing_is_printed_before_our_line(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"\x08\x08\x12\x04text")
    done = _run("predict", str(file), "a.jpg")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {file}: ")
