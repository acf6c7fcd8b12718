"""The environment of a benchmark: on another machine, or another day, figures may differ."""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resdeploy.deploy.benchmark.clocks import Clock, are_pinned, read_clocks
from resdeploy.deploy.machine import cores, cpu_flags, cpu_name, gpu_line, jetson_line, power_mode
from resdeploy.deploy.optional import installed_versions

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


def environment(threads: int | None, *, clocks: tuple[Clock, ...] | None = None) -> dict[str, Any]:
    """Processor, accelerator, clocks, load and versions as plain values; unknown ones are None.

    Call it before anything is timed: the load is that of the last minute. `clocks` are those of
    this machine unless they are given.
    """
    clocks = read_clocks() if clocks is None else clocks
    return {
        "cpu": cpu_name(),
        "cpu_flags": list(cpu_flags()),
        "cores": cores(),
        "threads": threads or cores(),
        "governor": _text_or_none(_GOVERNOR),
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": gpu_line(),
        "jetson": jetson_line(),
        "power_mode": power_mode(),
        "clocks": [asdict(clock) for clock in clocks],
        "clocks_pinned": are_pinned(clocks),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": installed_versions(_LIBRARIES),
    }


def _text_or_none(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
