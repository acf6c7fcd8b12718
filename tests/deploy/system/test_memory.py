"""What was freed is the system's again, and heaps are few."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from resdeploy.deploy.machine import cores
from resdeploy.deploy.system.memory import return_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    def held_mib() -> float:
        return (
            int(Path("/proc/self/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 2**20
        )

    pieces = [bytes(60_000) for _ in range(1500)]
    last = pieces.pop()  # above all others: without help they stay
    pieces.clear()
    before = held_mib()
    return_freed_memory()
    assert held_mib() < before - 40 and len(last) == 60_000


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    return_freed_memory()
    monkeypatch.setattr(sys, "platform", "win32")
    return_freed_memory()


_HEAPS = """
import ctypes, sys, threading
from resdeploy.deploy.machine import cores
from resdeploy.deploy.system.memory import limit_arenas

if sys.argv[1] == "limited":
    limit_arenas(cores())
together = threading.Barrier(cores() + 4)

def work():
    together.wait()
    bytearray(100_000)
    together.wait()

threads = [threading.Thread(target=work) for _ in range(cores() + 4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of glibc")
def test_there_are_as_many_heaps_as_cores() -> None:
    def heaps(word: str) -> int:
        words = [sys.executable, "-c", _HEAPS, word]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.count(
            "<heap nr="
        )

    assert heaps("limited") <= cores() < heaps("as it is")
