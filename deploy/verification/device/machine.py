"""The machine that ran the sessions, in one sentence."""

import platform

from resdeploy.deploy.machine import cores, cpu_name, gpu_line
from resdeploy.deploy.optional import installed_versions

_LIBRARIES = ("resdeploy", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "tensorrt")


def machine_sentence() -> str:
    """Processor, cores, GPU and versions of this machine."""
    gpu = gpu_line()
    accelerator = f", {gpu}" if gpu else ""
    versions = ", ".join(f"{name} {n}" for name, n in installed_versions(_LIBRARIES).items())
    python = f"Python {platform.python_version()}"
    return f"{cpu_name()}, {cores()} cores{accelerator}, {python}, {versions}"
