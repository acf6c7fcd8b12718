"""The command line starts fast and turns every kind of failure into one line and an exit code."""

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from resdeploy.deploy import cli
from resdeploy.deploy.errors import BackendError, InputError


def _main(monkeypatch: pytest.MonkeyPatch, raised: BaseException, *options: str) -> int:
    """The exit code of a command that raises."""

    @click.command()
    def broken() -> None:
        raise raised

    monkeypatch.setattr(cli._LazyGroup, "get_command", lambda *_: broken)
    monkeypatch.setattr(sys, "argv", ["resdeploy", *options, "broken"])
    with pytest.raises(SystemExit) as info:
        cli.main()
    assert isinstance(info.value.code, int)
    return info.value.code


@pytest.mark.parametrize(
    ("raised", "exit_code", "line"),
    [
        (InputError("a.jpg: bad"), 1, "error: a.jpg: bad"),
        (BackendError("no GPU"), 4, "error: no GPU"),
        (PermissionError(13, "Permission denied", "x"), 1, "error: x: Permission denied"),
        (click.UsageError("no such option"), 2, "Error: no such option"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was left half-written"),
        (ZeroDivisionError("a\nb"), 1, "error: unexpected ZeroDivisionError: a b (this is a fault"),
    ],
)
def test_exit_codes(
    raised: BaseException,
    exit_code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _main(monkeypatch, raised) == exit_code
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.strip().splitlines()[-1].startswith(line)
    assert "Traceback" not in errors


def test_debug_lets_errors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError):
        _main(monkeypatch, InputError("x"), "--debug")


def test_warnings_of_libraries_are_not_shown(tmp_path: Path) -> None:
    """Pillow warns about palettes with transparency; a user can do nothing with that."""
    program = (
        "import warnings\n"
        "from resdeploy.deploy import cli\n"
        "import click\n"
        "cli._LazyGroup.get_command = lambda *_: click.Command('x', callback=lambda: "
        "warnings.warn('for programmers'))\n"
        "import sys; sys.argv[1:] = ['x']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_is_fast() -> None:
    """0.25 s on an idle machine; processor time, because others may use the machine."""
    command = [sys.executable, "-c", "from resdeploy.deploy.cli import main; main()", "--help"]
    seconds = []
    for _ in range(3):
        before, start = os.times(), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        after = os.times()
        used = after.children_user - before.children_user
        used += after.children_system - before.children_system
        seconds.append(min(used, time.monotonic() - start))
        assert done.returncode == 0 and "predict" in done.stdout
    assert min(seconds) <= 0.25
