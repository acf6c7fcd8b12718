"""A server in a process group of its own: its start, its CPU time, its end."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 90.0


@contextmanager
def server(
    words: Sequence[str], port: int, ready: Callable[[], bool]
) -> Iterator[tuple[int, float]]:
    """Run a server; yields its process and the seconds it took until `ready`."""
    began = time.perf_counter()
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # LitServe has children, which end with it
    )
    try:
        while not ready():
            if process.poll() is not None or time.perf_counter() - began > _PATIENCE_S:
                raise RuntimeError(f"{' '.join(words)}: does not answer on port {port}")
            time.sleep(0.005)
        yield process.pid, time.perf_counter() - began
    finally:
        with suppress(ProcessLookupError):  # ended by itself: what it failed at is raised already
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def cpu_seconds(root: int) -> float:
    """CPU time so far of a process and of those it started, and they, that still run."""
    parents, ticks = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        pid = int(file.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])

    def belongs(pid: int) -> bool:
        while pid not in (root, 0):
            pid = parents.get(pid, 0)
        return pid == root

    return sum(used for pid, used in ticks.items() if belongs(pid)) / _TICKS


def ours(bundle: Path, port: int, *options: str) -> list[str]:
    words = [sys.executable, "-m", "resdeploy", "serve", str(bundle), "--port", str(port)]
    return [*words, "--no-grpc", *options]


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
