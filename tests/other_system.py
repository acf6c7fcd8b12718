"""Makes this interpreter look like one on Windows or macOS: what they lack is gone or refuses.

    python tests/other_system.py win32|darwin PROGRAM ARGUMENT…

Libraries that ask for the system while they are imported are loaded before it changes. `os.name`
stays: pathlib would make paths of the other kind.
"""

import builtins
import ctypes
import errno
import io
import os
import runpy
import select
import shutil
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_POSIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
_LINUX_NAMES = ("memfd_create", "sched_getaffinity", "sched_setaffinity", "pidfd_open", "setns")
_POSIX_NAMES = (
    *("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "O_SYNC", "fork", "forkpty"),
    *("getuid", "geteuid", "getgid", "killpg", "setsid", "statvfs", "uname", "mkfifo", "fchmod"),
    *("chown", "pread", "sysconf", "wait4", "fdatasync", "openpty", "getpgid", "nice"),
)
_POSIX_SIGNALS = ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE")
# what comes with the base installation and [cpu], and asks for the system when it is imported
_LOADED_BEFORE = (
    *("asyncio", "concurrent.futures", "importlib.metadata", "logging", "multiprocessing"),
    *("subprocess", "shutil", "tempfile", "uuid", "zipfile", "urllib.request", "platform", "ssl"),
    *("click", "numpy", "numpy.random", "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont"),
    *("onnxruntime", "rich.console", "rich.progress", "rich.table", "rich.box"),
)


def become(system: str) -> None:
    """Change this interpreter; there is no way back."""
    for name in _LOADED_BEFORE:
        import_module(name)
    sys.platform = system
    _take_away(os, _LINUX_NAMES)
    _hide_files("/proc/", "/sys/", "/etc/nv_tegra_release")
    if system == "win32":
        for name in _POSIX_MODULES:
            sys.modules[name] = None  # type: ignore[assignment]
        _take_away(os, _POSIX_NAMES)
        _take_away(signal, _POSIX_SIGNALS)
        _no_handles_of_folders()
        _no_renaming_of_open_files()
        signal.SIGBREAK = signal.SIGQUIT  # type: ignore[attr-defined]
        shutil._use_fd_functions = False  # type: ignore[attr-defined]
        os.kill = select.select = _refused
    libraries = ctypes.CDLL

    def load(name: str | None, *arguments: Any, **options: Any) -> ctypes.CDLL:
        if name is None and system == "win32":
            raise TypeError("argument of type 'NoneType' is not iterable")
        found = libraries(name, *arguments, **options)
        return _Without(found) if name is None else found  # type: ignore[return-value]

    ctypes.CDLL = load  # type: ignore[assignment, misc]
    if system == "win32":
        ctypes.WinDLL = lambda name: _Kernel()  # type: ignore[attr-defined]


class _Without:
    """A C library that has none of Linux's own functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        if name in ("renameat2", "prctl", "malloc_trim"):
            raise AttributeError(name)
        return getattr(self._library, name)


class _Kernel:
    """kernel32, which knows this process and no other."""

    def __init__(self) -> None:
        self.OpenProcess = self._open

    @staticmethod
    def _open(access: int, inherit: bool, process: int) -> int:
        return 7 if process == os.getpid() else 0

    # an attribute of ctypes' functions, and of this one
    _open.restype = None  # type: ignore[attr-defined]

    @staticmethod
    def GetExitCodeProcess(handle: ctypes.c_void_p, status: Any) -> int:
        assert handle.value == 7
        status._obj.value = 259
        return 1

    @staticmethod
    def CloseHandle(handle: ctypes.c_void_p) -> int:
        return 1


def _refused(*arguments: Any, **options: Any) -> Any:
    raise AssertionError(f"Windows does something else here: {arguments}")


def _take_away(module: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def _hide_files(*places: str) -> None:
    def hides(call: Any) -> Any:
        def opened(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(places):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return call(path, *arguments, **options)

        return opened

    for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat")):
        setattr(module, name, hides(getattr(module, name)))


def _no_handles_of_folders() -> None:
    call = os.open

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return call(path, *arguments, **options)

    os.open = opened


def _no_renaming_of_open_files() -> None:
    """Windows renames and removes no file that is open, and no folder with one in it."""
    open_files, real = "/proc/self/fd", (os.rename, os.replace, os.unlink, os.rmdir, os.listdir)
    rename, replace, unlink, rmdir, listdir = real

    def check(path: Any) -> None:
        place = os.path.realpath(path)
        for number in listdir(open_files):
            try:
                target = os.readlink(f"{open_files}/{number}")
            except OSError:
                continue
            if target == place or target.startswith(f"{place}/"):
                raise PermissionError(errno.EACCES, "used by another process", str(path))

    def renamed(source: Any, target: Any, **options: Any) -> None:
        if os.path.exists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        check(source)
        rename(source, target, **options)

    def replaced(source: Any, target: Any, **options: Any) -> None:
        if os.path.isdir(target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        check(source)
        check(target)
        replace(source, target, **options)

    def removes(call: Any) -> Any:
        def removed(path: Any, **options: Any) -> None:
            check(path)
            call(path, **options)

        return removed

    os.rename, os.replace = renamed, replaced  # type: ignore[assignment]
    os.unlink, os.rmdir = removes(unlink), removes(rmdir)
    os.remove = os.unlink


if __name__ == "__main__":
    system, program, *sys.argv[1:] = sys.argv[1:]
    become(system)
    sys.argv[0] = program
    runpy.run_path(str(Path(program)), run_name="__main__")
