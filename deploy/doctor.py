"""What works on this machine, found out by trying it, and how to get what does not."""

import base64
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.machine import command_output, cpu_line, gpu_line, jetson_line
from resdeploy.deploy.specs import Backend

# A 1x1 convolution as an ONNX file (opset 17): enough to make a provider start, load its
# libraries and launch a kernel.
_CONVOLUTION_ONNX = base64.b64decode(
    "CAgSADqEAQoYCgVpbnB1dAoBdxIGbG9naXRzIgRDb252EgZ3YXJtdXAqEwgBCAEIAQgBEAFCAXdKBAAAAEBaJAoFaW5w"
    "dXQSGwoZCAESFQoHEgViYXRjaAoCCAEKAggCCgIIAmIlCgZsb2dpdHMSGwoZCAESFQoHEgViYXRjaAoCCAEKAggCCgII"
    "AkIECgAQEQ=="
)

# library -> (needed for, extra)
_LIBRARIES = {
    "torch": ("export", "export"),
    "torchvision": ("export", "export"),
    "onnx": ("export, quantize", "export"),
    "onnxsim": ("export", "export"),
    "safetensors": ("reading .safetensors", "export"),
}


@dataclass(frozen=True)
class Finding:
    """One thing examined: `works` is None where there is nothing to work or fail."""

    name: str
    works: bool | None
    detail: str
    advice: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the name, which is the key."""
        return {"works": self.works, "detail": self.detail, "advice": self.advice}


def examine() -> list[Finding]:
    """Examine everything; takes a second or two because backends are really started."""
    findings = [
        Finding("python", sys.version_info >= (3, 10), platform.python_version()),
        Finding("system", None, f"{platform.system()} {platform.machine()}"),
        Finding("cpu", None, cpu_line()),
        *_jetson(),
        _gpu(),
        *(
            Finding(name, True, version(name))
            for name in ("resdeploy", "numpy", "pillow", "click", "rich")
        ),
        *(_library(name, use, extra) for name, (use, extra) in _LIBRARIES.items()),
        *_onnxruntime(),
        _tensorrt("tensorrt", "tensorrt"),
        _tensorrt("tensorrt_rtx", "tensorrt-rtx"),
    ]
    return findings


def _jetson() -> Iterator[Finding]:
    if line := jetson_line():
        yield Finding("jetson", None, line)


def _gpu() -> Finding:
    problem = cuda_problem()
    if problem is None:
        return Finding("gpu", True, gpu_line() or "CUDA driver and device found")
    return Finding("gpu", False, problem, "install the NVIDIA driver, if there is an NVIDIA GPU")


def _library(name: str, use: str, extra: str) -> Finding:
    install = f"pip install 'resdeploy[{extra}]'"
    if find_spec(name) is None:
        return Finding(name, False, f"not installed (for {use})", install)
    return Finding(name, True, _version(name))


def _onnxruntime() -> Iterator[Finding]:
    if find_spec("onnxruntime") is None:
        advice = "pip install 'resdeploy[runtime]'"
        yield Finding("onnxruntime", False, "not installed (for predict, quantize)", advice)
        return
    try:
        from resdeploy.deploy.ort import providers
    except ImportError as error:
        advice = "pip install --force-reinstall 'resdeploy[runtime]'"
        yield Finding("onnxruntime", False, f"cannot be imported: {error}", advice)
        return
    listed = ", ".join(name.removesuffix("ExecutionProvider") for name in providers())
    yield Finding("onnxruntime", True, f"{_version('onnxruntime')} (built with {listed})")
    yield _provider("ort-cpu")
    yield _provider("ort-cuda")


def _provider(backend: Backend) -> Finding:
    """Run a real inference: being listed says nothing about libraries, driver or kernels."""
    from resdeploy.deploy.ort import OrtSession

    if backend != "ort-cpu" and (problem := cuda_problem()):
        return Finding(backend, False, problem, "needs an NVIDIA GPU")
    try:
        with OrtSession(_CONVOLUTION_ONNX, backend=backend) as session:
            answer = session.run(np.ones((1, 1, 2, 2), np.float32))
    except ResdeployError as error:
        return Finding(backend, False, str(error), "pip install 'resdeploy[runtime]'")
    right = bool((answer == 2).all())
    return Finding(backend, right, "warm-up inference " + ("right" if right else "gave nonsense"))


def _tensorrt(module: str, extra: str) -> Finding:
    if find_spec(module) is None:
        advice = f"pip install 'resdeploy[{extra}]'"
        if module == "tensorrt" and jetson_line():
            # the wheel on PyPI is not for Jetsons; JetPack installs it for the system's Python
            advice = "python3 -m venv --system-site-packages .venv (JetPack brings tensorrt)"
        return Finding(module, False, "not installed", advice)
    # in a process of its own: a native library that does not fit this machine may crash
    found = command_output([sys.executable, "-c", f"import {module}; print({module}.__version__)"])
    if not found:
        reason = "installed, but importing it fails"
        return Finding(module, False, reason, f'python -c "import {module}" shows why')
    note = "builds engines here" if cuda_problem() else "builds and runs engines here"
    return Finding(module, True, f"{found.splitlines()[-1]} ({note})")


def _version(module: str) -> str:
    for distribution in (module, f"{module}-gpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "version unknown"
