"""Which processes run, what ends a command, and what only Linux's C library does."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from resdeploy.deploy.system.processes import (
    ENDING_SIGNALS,
    c_library,
    is_running,
    on_signals,
)


def test_this_process_runs_and_one_that_ended_does_not() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_running(os.getpid()) and is_running(1) and not is_running(ended.pid)


def test_a_command_is_ended_by_these() -> None:
    assert set(ENDING_SIGNALS) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@pytest.mark.parametrize("loop_can", [True, False])
def test_a_signal_reaches_the_loop(loop_can: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def told() -> None:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        if not loop_can:  # as on Windows

            def refuse(*arguments: object) -> None:
                raise NotImplementedError

            monkeypatch.setattr(loop, "add_signal_handler", refuse)
        on_signals(loop, ("SIGUSR1", "SIGNOWHERE"), came.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(came.wait(), 30)

    before = signal.getsignal(signal.SIGUSR1)
    try:
        asyncio.run(told())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_c_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OSError, match="another C library"):
        c_library()
