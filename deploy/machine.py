"""Facts about this machine that decide speed and what can run: CPU, GPU, Jetson, power mode."""

import os
import platform
import re
import subprocess
from pathlib import Path

# What decides the speed and the saturation of INT8 on a CPU (x86 flags; Arm's dot product).
_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimddp",
    "i8mm",
    "asimdhp",
)


def cores() -> int:
    """Processors this process may run on, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Those of the instruction sets relevant here that this CPU has."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith(("flags", "Features")):
            present = set(line.partition(":")[2].split())
            return tuple(flag for flag in _CPU_FLAGS if flag in present)
    return ()


def has_exact_int8() -> bool:
    """Whether ONNX Runtime's u8 x s8 kernels on this CPU accumulate without saturating.

    x86 without VNNI uses vpmaddubsw, which adds two products in 16 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return any(flag in ("avx512_vnni", "avx_vnni", "amx_int8") for flag in cpu_flags())


def cpu_line() -> str:
    """One line: name, usable cores, instruction sets, and what INT8 does here."""
    exact = "INT8 kernels exact" if has_exact_int8() else "no VNNI: 8-bit weights saturate"
    return f"{cpu_name()}, {cores()} cores, {' '.join(cpu_flags()) or platform.machine()} ({exact})"


def gpu_line() -> str | None:
    """Name, memory and driver of the GPUs, from nvidia-smi; None where that tool is not."""
    query = "name,memory.total,driver_version,compute_cap"
    output = command_output(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"])
    return "; ".join(output.splitlines()) if output else None


def jetson_line() -> str | None:
    """Module, L4T release and power mode of a Jetson; None on anything else."""
    release = next(iter(_lines(Path("/etc/nv_tegra_release"))), "")
    model = _text(Path("/proc/device-tree/model")).strip("\0 \n")
    if not release and "NVIDIA" not in model:
        return None
    parts = [model or "NVIDIA Jetson"]
    if match := re.search(r"R(\d+).*REVISION: ([\d.]+)", release):
        parts.append(f"L4T {match[1]}.{match[2]}")
    if mode := power_mode():
        parts.append(f"power mode {mode}")
    return ", ".join(parts)


def free_memory_bytes() -> int:
    """Memory that programs can still have without swapping; 0 where the system does not tell."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def peak_memory_bytes() -> int:
    """The most memory this process ever held; 0 where the system does not tell.

    Not getrusage: its figure begins with that of the process that started this one.
    """
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def power_mode() -> str | None:
    """The power mode's name as nvpmodel gives it; ids and names differ from module to module."""
    match = re.search(r"NV Power Mode:\s*(\S+)", command_output(["nvpmodel", "-q"]))
    return match[1] if match else None


def command_output(command: list[str], timeout_s: float = 10) -> str:
    """What a system tool prints on stdout; "" when it is missing, fails or hangs."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
