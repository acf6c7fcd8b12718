"""Processes and signals as the system has them, and what its C library alone can do."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes
    from asyncio import AbstractEventLoop

# What ends a command and lets it clear away first. Windows has no SIGHUP.
ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

_PR_SET_PDEATHSIG = 1
_QUERY_LIMITED_INFORMATION, _STILL_ACTIVE = 0x1000, 259  # of Windows


def is_running(process: int) -> bool:
    """Whether a process with this id exists."""
    if sys.platform == "win32":  # where os.kill(process, 0) would end it
        return _is_running_on_windows(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_with_parent(parent: int | None) -> None:
    """Let the kernel end this process when its parent is killed (Linux); at once if it was."""
    try:
        c_library().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if parent is not None and os.getppid() != parent:
        os._exit(1)  # it died before the kernel was asked


def on_signals(
    loop: "AbstractEventLoop", names: Sequence[str], action: Callable[[], object]
) -> None:
    """Let the loop call `action` at each of these signals that the system has."""
    for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
        try:
            loop.add_signal_handler(number, action)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(action))


def c_library() -> "ctypes.CDLL":
    """The C library of this process, with errno.

    Raises:
        OSError: on Windows, where none of its functions used here exist.
    """
    if sys.platform == "win32":
        raise OSError("Windows has another C library")
    import ctypes  # which every command would load, and few need

    return ctypes.CDLL(None, use_errno=True)


def _is_running_on_windows(process: int) -> bool:
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]  # on Windows alone
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, process)
    if not handle:
        return False
    status = ctypes.c_ulong()
    kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(status))
    kernel.CloseHandle(ctypes.c_void_p(handle))
    return status.value == _STILL_ACTIVE
