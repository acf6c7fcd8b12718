"""The `resdeploy` command, and the one place for every error."""

import errno
import gc
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import NoReturn

import click

from resdeploy.deploy.cli.output import say, write
from resdeploy.deploy.cli.shell.group import CommandGroup
from resdeploy.deploy.errors import EXIT_FIXABLE, InputError, ResdeployError
from resdeploy.deploy.system.processes import ENDING_SIGNALS
from resdeploy.deploy.system.streams import occupy_standard_streams

_NO_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
    "cannot allocate memory",
    "failed to map segment",
    "unable to allocate",
)
_REPEAT_S = 0.02
_LOADING = [("<frozen importlib._bootstrap_external>", name) for name in
            ("create_module", "exec_module")]  # fmt: skip


@click.command(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="resdeploy export net.pth --calib photos/train --data photos/val\n"
    "resdeploy predict net.bundle tulip.jpg",
)
@click.version_option(package_name="resdeploy")
@click.option("-q", "--quiet", is_flag=True, help="The result alone: no remarks, no progress.")
@click.option("-v", is_flag=True, help="All of it: repairs that were tried, every column.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(quiet: bool, v: bool, debug: bool) -> None:
    """From a trained image classifier's .pth file to a proven edge deployment.

    COMMAND --help explains each. -q, -v and --debug may stand anywhere on the line.

    Exit codes: 0 done, 1 an error you can fix, 2 wrong usage, 3 the accuracy gate failed,
    4 the backend or hardware asked for is not here.
    """


def main() -> None:
    """Run the command line; the only place that turns errors into exit codes."""
    occupy_standard_streams()
    # ONNX Runtime would make a database and an identifier of this machine below ~/.cache as soon
    # as it is imported; who wants that sets the variable to 0
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if not sys.warnoptions and "--debug" not in sys.argv:
        warnings.simplefilter("ignore")  # libraries' remarks to programmers, not to users
    received: list[int] = []
    try:
        with _signals_as_interrupts(received):
            status = _run(received)
            if received:
                _end_here(status)
    except KeyboardInterrupt as error:  # it came as the command began, or after its end
        status = _told(_failure(error, received))
        if received:
            _end_here(status)
    sys.exit(status)


def _end_here(status: int) -> NoReturn:
    """After a signal: native code that met the interrupt may have told Python to end by SIGINT."""
    gc.collect()
    os._exit(status)


def _run(received: list[int]) -> int:
    try:
        status = cli.main(prog_name="resdeploy", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except KeyboardInterrupt as error:
        return _told(_failure(error, received))
    except Exception as error:
        ours = received or isinstance(error, click.ClickException | click.Abort)
        if "--debug" in sys.argv and not ours:
            raise
        return _told(_failure(error, received))


@dataclass(frozen=True)
class _Failure:
    """Why a command ended: one line, the class of the error, the exit code."""

    line: str
    kind: str
    exit_code: int


def _failure(error: BaseException, received: list[int]) -> _Failure:
    if received or isinstance(error, click.Abort | KeyboardInterrupt):
        number = received[0] if received else signal.SIGINT
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        return _Failure(
            f"interrupted{by}: no half-written file is left", "Interrupted", 128 + number
        )
    kind = type(error).__name__
    if isinstance(error, click.ClickException):
        usage = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else ""
        if usage:
            write(f"{usage}\nTry 'resdeploy --help' or the command's own --help.\n", stderr=True)
        return _Failure(f"Error: {error.format_message()}", kind, error.exit_code)
    if _is_out_of_memory(error):
        advice = "free some, or use smaller images or batches"
        return _Failure(f"error: out of memory: {advice}", "MemoryError", EXIT_FIXABLE)
    if isinstance(error, ResdeployError):
        return _Failure(f"error: {error}", kind, error.exit_code)
    if isinstance(error, OSError) and error.strerror:
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _Failure(f"error: {name}{error.strerror}", kind, EXIT_FIXABLE)
    return _Failure(
        f"error: unexpected {kind}: {' '.join(str(error).split())} "
        "(this is a fault of resdeploy: run again with resdeploy --debug and report it)",
        kind,
        EXIT_FIXABLE,
    )


def _told(failure: _Failure) -> int:
    """The exit code, once the line is on stderr and, where JSON was asked for, on stdout too."""
    say(failure.line, stderr=True)
    before_operands = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
    if "--json" in before_operands:
        message = failure.line.partition(": ")[2] if failure.kind != "Interrupted" else failure.line
        content = {"message": message, "kind": failure.kind, "exit_code": failure.exit_code}
        with suppress(InputError, BrokenPipeError):  # that may be the very error
            write(json.dumps({"error": content}, indent=2))
    return failure.exit_code


def _is_out_of_memory(error: BaseException | None) -> bool:
    """By its class, or by the words of the loader, of threads and of C++ when memory ends."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _repeating(
    received: list[int],
    interrupt: Callable[[int, FrameType | None], None],
    unraisable: Callable[["sys.UnraisableHookArgs"], object],
) -> Callable[["sys.UnraisableHookArgs"], object]:
    """The `sys.unraisablehook` that lets an interrupt which Python only reported come again."""

    def repeat(swallowed: "sys.UnraisableHookArgs") -> None:
        if not received or not issubclass(swallowed.exc_type, KeyboardInterrupt):
            unraisable(swallowed)
            return
        number = received.pop()
        signal.signal(number, interrupt)
        _send_later(number)

    return repeat


def _send_later(number: int) -> None:
    """Let a signal come again, but not at once: the main thread cannot take it where it is."""
    main_thread = threading.main_thread().ident
    later = threading.Timer(_REPEAT_S, signal.pthread_kill, (main_thread, number))
    later.daemon = True
    later.start()


def _loads_native_code(frame: FrameType | None) -> bool:
    """Whether a module of native code is being initialised, which an exception may crash."""
    while frame is not None:
        code = frame.f_code
        if (code.co_filename, code.co_name) in _LOADING and isinstance(
            frame.f_locals.get("self"), ExtensionFileLoader
        ):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _signals_as_interrupts(received: list[int]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that nothing half made is left.

    `received` gets the signal's number: native code may turn the interrupt into an error of its
    own. A signal that is ignored (nohup) stays so. Where Python can only report the interrupt and
    go on (it came in a callback of the import system, in `__del__`), it comes again; it waits
    until a module of native code is loaded.
    """
    over = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if over:
            return  # all is done: an interrupt now would leave the signals half restored
        if _loads_native_code(frame):
            _send_later(number)
            return
        received.append(number)
        for ours in before:
            signal.signal(ours, signal.SIG_IGN)  # a second one must not stop the clearing away
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: action for number, action in before.items() if action in usual}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    for number in before:
        signal.signal(number, interrupt)
    unraisable = sys.unraisablehook
    sys.unraisablehook = _repeating(received, interrupt, unraisable)
    try:
        yield
    finally:
        over = True
        sys.unraisablehook = unraisable
        for number, action in before.items():
            signal.signal(number, action)
