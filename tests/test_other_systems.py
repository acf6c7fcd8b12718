"""On Windows and macOS the base installation with [cpu] imports, predicts and changes bundles.

An interpreter without what those systems lack stands for them (`tests/other_system.py`); the
workflow `.github/workflows/test.yml` runs the same program on the real ones.
"""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}
# attributes of os, signal, select, ctypes and asyncio that Windows lacks or that do else there
_POSIX_CALLS = {
    *("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY", "fork", "killpg", "setsid"),
    *("getuid", "geteuid", "getgid", "statvfs", "uname", "mkfifo", "memfd_create", "kill"),
    *("SIGHUP", "SIGKILL", "SIGUSR1", "add_signal_handler", "prctl", "renameat2", "malloc_trim"),
}
_NAMED = {
    "deploy/system": "the home of what differs",
    "deploy/engine/supervisor.py": "engines are built on Linux: it names SIGKILL",
    "deploy/bundle/exchange.py": "renameat2, where the C library has it",
}


def _installed_onnxruntime() -> str:
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return distribution(name).name
        except PackageNotFoundError:
            continue
    pytest.skip("onnxruntime is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_everything_of_the_base_runs_where_linux_is_not(
    system: str,
    bare_python: Callable[..., list[str]],
    flower_bundle: Path,
    image_folder: Path,
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "flowers.bundle"
    shutil.copytree(flower_bundle, bundle)
    start = "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [
        *bare_python(_installed_onnxruntime(), "flatbuffers", "protobuf", "packaging"),
        f"import runpy, sys; {start}",
        *map(str, (_ROOT / "tests/other_system.py", system, _ROOT / "tests/base_program.py")),
        *map(str, (bundle, image_folder, tmp_path / "answers.csv")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["system"] == system and said["modules"] > 120 and said["images"] == 24
    assert said["owner"] is True and said["swept"] is True
    assert (tmp_path / "answers.csv").read_text().count("\n") == 25
    assert not list(tmp_path.glob(".*.new.*"))


def test_the_stand_in_refuses_what_windows_refuses(tmp_path: Path) -> None:
    # else the test above could not fail
    program = tmp_path / "program.py"
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    program.write_text(
        "import ctypes, importlib, os, sys\n"
        "def refused(call):\n"
        "    try: call()\n"
        "    except (OSError, ImportError, AttributeError, TypeError, AssertionError): return\n"
        "    sys.exit(f'{call} was not refused')\n"
        "file, folder = sys.argv[1:]\n"
        "refused(lambda: importlib.import_module('fcntl'))\n"
        "refused(lambda: os.open(folder, os.O_RDONLY))\n"
        "refused(lambda: os.open(file, os.O_NONBLOCK))\n"
        "refused(lambda: os.kill(os.getpid(), 0))\n"
        "refused(lambda: ctypes.CDLL(None))\n"
        "refused(lambda: open('/proc/meminfo'))\n"
        "with open(file, 'w'): refused(lambda: os.replace(file, file + '2'))\n"
        "refused(lambda: os.rename(file, folder))\n"
    )
    words = [sys.executable, str(_ROOT / "tests/other_system.py"), "win32", str(program)]
    done = subprocess.run([*words, str(file), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_only_posix_has_stands_in_named_files() -> None:
    found = set()
    for package in ("deploy", "export", "calibration"):
        for file in (_ROOT / package).rglob("*.py"):
            name = file.relative_to(_ROOT).as_posix()
            tree = ast.parse(file.read_text(encoding="utf-8"))
            if any(map(_is_posix_only, ast.walk(tree))):
                found.add("deploy/system" if name.startswith("deploy/system/") else name)
    assert found == set(_NAMED)


def _is_posix_only(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name in _POSIX_ONLY for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.module in _POSIX_ONLY
    # process.kill() of subprocess is everywhere
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr in _POSIX_CALLS and node.value.id != "process"
    return isinstance(node, ast.Attribute) and node.attr in _POSIX_CALLS - {"kill"}
