"""The command line starts fast and turns every kind of failure into one line and an exit code."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from resdeploy.deploy.cli import main as cli
from resdeploy.deploy.cli.shell.group import CommandGroup
from resdeploy.deploy.errors import BackendError, InputError
from tests.command import run_command

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


def _main(monkeypatch: pytest.MonkeyPatch, raised: BaseException, *options: str) -> int:
    """The exit code of a command that raises."""

    @click.command()
    def broken() -> None:
        raise raised

    monkeypatch.setattr(CommandGroup, "get_command", lambda *_: broken)
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
        (KeyboardInterrupt(), 130, "interrupted: no half-written file is left"),
        (MemoryError(), 1, "error: out of memory: free some"),
        (ImportError("x.so: failed to map segment from shared object"), 1, "error: out of memory"),
        (RuntimeError("can't start new thread"), 1, "error: out of memory"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
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
        "from resdeploy.deploy.cli import main as cli\n"
        "import click\n"
        "cli.CommandGroup.get_command = lambda *_: click.Command('x', callback=lambda: "
        "warnings.warn('for programmers'))\n"
        "import sys; sys.argv[1:] = ['x']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


_CLEARS_AWAY = """
import sys, time
from pathlib import Path
import click
from resdeploy.deploy.bundle.update import new_bundle
from resdeploy.deploy.cli import main as cli
from resdeploy.deploy.files import replaced_file

@click.command()
def broken():
    folder = Path(sys.argv[2])
    with new_bundle(folder / "net.bundle") as new, replaced_file(folder / "report.csv") as file:
        (new / "fp32.onnx").write_text("half")
        file.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

cli.CommandGroup.get_command = lambda *_: broken
broken.params.append(click.Argument(["folder"], expose_value=False))
cli.main()
"""


@pytest.mark.parametrize(
    ("sent", "exit_code", "line"),
    [
        (signal.SIGINT, 130, "interrupted: no half-written file is left"),
        (signal.SIGTERM, 143, "interrupted by SIGTERM: no half-written file is left"),
        (signal.SIGHUP, 129, "interrupted by SIGHUP: no half-written file is left"),
    ],
)
def test_signals_leave_nothing(
    sent: signal.Signals, exit_code: int, line: str, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _CLEARS_AWAY, "broken", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (exit_code, line)
    assert not list(tmp_path.iterdir())


_IN_A_CALLBACK = """
import os, signal, sys, time, weakref
import click
from resdeploy.deploy.cli import main as cli

class Lock:
    pass

@click.command()
def broken():
    lock = Lock()
    callback = weakref.ref(lock, lambda _: os.kill(os.getpid(), signal.SIGINT) or time.sleep(0.1))
    del lock
    time.sleep(60)

cli.CommandGroup.get_command = lambda *_: broken
cli.main()
"""


def test_an_interrupt_that_python_can_only_report_comes_again() -> None:
    """Python's import system has such callbacks: Ctrl-C in one was printed, and the run went on."""
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_CALLBACK, "broken"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted: no half-written file is left"


_WHILE_LOADING = """
import os, signal, sys, time
from importlib.machinery import ExtensionFileLoader
import click
from resdeploy.deploy.cli import main as cli

class Loader(ExtensionFileLoader):
    pass

# as importlib's own: its code calls into native code, which may call Python
source = "def exec_module(self, module): module()"
names = {}
exec(compile(source, "<frozen importlib._bootstrap_external>", "exec"), names)
Loader.exec_module = names["exec_module"]

def initialise():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    print("loaded", flush=True)

@click.command()
def broken():
    Loader("x", "x.so").exec_module(initialise)
    time.sleep(60)

cli.CommandGroup.get_command = lambda *_: broken
cli.main()
"""


def test_a_signal_waits_until_native_code_is_loaded() -> None:
    """An exception in the midst of its initialisation may crash it: 5 of 200 signals at random
    moments of `import onnx` ended Python by SIGSEGV or SIGABRT."""
    done = subprocess.run(
        [sys.executable, "-c", _WHILE_LOADING, "broken"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (143, "loaded\n")
    assert done.stderr.strip() == "interrupted by SIGTERM: no half-written file is left"


def test_a_signal_as_a_command_begins_ends_it_as_any_other_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before `cli` is called there is no handler of errors within the command's own."""
    ended: list[int] = []

    def interrupted(received: list[int]) -> int:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal was not heard")

    monkeypatch.setattr(cli, "_run", interrupted)
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(SystemExit):
        cli.main()
    assert ended == [143]
    assert capsys.readouterr().err.startswith("interrupted by SIGTERM: ")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_modules_log_is_harmless_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @click.command()
    def broken() -> None:
        try:
            raise ValueError("\x1b[2J of a request")
        except ValueError:
            logging.getLogger("resdeploy.deploy").exception("request %s failed", "\u202e7")

    monkeypatch.setattr(CommandGroup, "get_command", lambda *_: broken)
    said = run_command("broken").stderr.splitlines()
    assert said[0] == "request \\u202e7 failed"
    assert said[-1] == "ValueError: \\x1b[2J of a request"
    assert not logging.getLogger("resdeploy").handlers


def _json_commands() -> "list[ParameterSet]":
    context = click.Context(cli.cli)
    found = [(name, cli.cli.get_command(context, name)) for name in cli.cli.list_commands(context)]
    # `adopt` imports onnx before it looks at its file
    return [
        pytest.param(name, one, id=name, marks=[pytest.mark.slow] if name == "adopt" else [])
        for name, one in found
        if one is not None and any("--json" in p.opts for p in one.params)
    ]


@pytest.mark.parametrize(("name", "command"), _json_commands())
def test_an_error_with_json_is_one_object_on_every_command(
    name: str, command: click.Command, tmp_path: Path
) -> None:
    arguments = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    required = [p.opts[-1] for p in command.params if isinstance(p, click.Option) and p.required]
    words = ["absent/x" for _ in arguments] + [word for o in required for word in (o, "new")]
    lines = [[*words, "--no-such-option"]]
    if arguments:
        lines += [words, words[:0]]
    for line in lines:
        done = run_command(name, *line, "--json", folder=tmp_path)
        (key, error), *others = json.loads(done.stdout).items()
        assert key == "error" and not others, line
        assert error["exit_code"] == done.returncode > 0
        assert error["kind"].isidentifier() and error["message"] in done.stderr
        assert not list(tmp_path.iterdir())
