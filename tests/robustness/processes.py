"""What /proc tells of the processes that are killed, and waiting for their end."""

import os
import re
import signal
import time
from pathlib import Path

# seconds without a tick of CPU time; a busy machine lets nobody wait so long
HANGS_S = 120.0
_LOOPS_S = 300.0  # of CPU time after a signal
_TICKS = os.sysconf("SC_CLK_TCK")


def ended(process: int, number: signal.Signals) -> tuple[int, float]:
    """The exit code of a process, and the CPU time that it and its children took."""
    begun_s = last_s = cpu_s(process)
    until = time.monotonic() + HANGS_S
    while True:
        found, status, usage = os.wait4(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        if (used_s := cpu_s(process)) > last_s:
            last_s, until = used_s, time.monotonic() + HANGS_S
        if time.monotonic() > until or used_s - begun_s > _LOOPS_S:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise AssertionError(f"hangs after {number.name}, {used_s - begun_s:.0f} s of CPU")
        time.sleep(0.005)


def cpu_s(process: int) -> float:
    """The CPU time of a process and of those that it started, whether they are gone or not."""
    found = [process, *children(process)]
    return sum(float(t) for one in found for t in _stat(one)[11:15]) / _TICKS


def is_running(process: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    fields = _stat(process)
    return bool(fields) and fields[0] != "Z"


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; none where there is no such process."""
    try:
        return re.sub(r".*\) ", "", Path(f"/proc/{process}/stat").read_text()).split()
    except OSError:
        return []


def children(process: int) -> list[int]:
    """The processes that the main thread of one started and that were not waited for yet."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]
