"""Under which conditions a benchmark ran: another machine, or day, may differ."""

import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from resdeploy.deploy.clocks import are_pinned, read_clocks
from resdeploy.deploy.machine import cores, cpu_flags, cpu_name, gpu_line, jetson_line, power_mode

_LIBRARIES = (
    "resdeploy",
    "numpy",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
)
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def conditions(threads: int | None) -> dict[str, Any]:
    """Processor, accelerator, clocks, load and versions as plain values; unknown ones are None.

    Ask before anything is timed: the load is that of the last minute.
    """
    clocks = read_clocks()
    return {
        "cpu": cpu_name(),
        "cpu_flags": list(cpu_flags()),
        "cores": cores(),
        "threads": threads or cores(),
        "governor": _first_line(_GOVERNOR),
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": gpu_line(),
        "jetson": jetson_line(),
        "power_mode": power_mode(),
        "clocks": [asdict(clock) for clock in clocks],
        "clocks_pinned": are_pinned(clocks),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
