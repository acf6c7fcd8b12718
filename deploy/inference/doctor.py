"""What works on this machine, as trying it shows, and how to get what does not."""

import base64
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.installation import install_command
from resdeploy.deploy.machine import command_output, cpu_line, gpu_line, jetson_line
from resdeploy.deploy.optional import extra_of, installed_version
from resdeploy.deploy.specs import Backend

# A 1x1 convolution as an ONNX file (opset 17): enough to make a provider start, load its
# libraries and launch a kernel.
_CONVOLUTION_ONNX = base64.b64decode(
    "CAgSADqEAQoYCgVpbnB1dAoBdxIGbG9naXRzIgRDb252EgZ3YXJtdXAqEwgBCAEIAQgBEAFCAXdKBAAAAEBaJAoFaW5w"
    "dXQSGwoZCAESFQoHEgViYXRjaAoCCAEKAggCCgIIAmIlCgZsb2dpdHMSGwoZCAESFQoHEgViYXRjaAoCCAEKAggCCgII"
    "AkIECgAQEQ=="
)

# library -> what needs it
_LIBRARIES = {
    "torch": "export",
    "torchvision": "export",
    "onnx": "export, quantize",
    "onnxsim": "export",
    "safetensors": "reading .safetensors",
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
            Finding(name, True, _version(name))
            for name in ("resdeploy", "numpy", "pillow", "click", "rich")
        ),
        *(_library(name, use) for name, use in _LIBRARIES.items()),
        *_onnxruntime(),
        _tensorrt("tensorrt"),
        _tensorrt("tensorrt_rtx"),
    ]
    return findings


# what a person wants to do -> the findings that must all work
_ABILITIES: dict[str, tuple[str, ...]] = {
    "inspect bundles and engines": (),
    "export checkpoints": ("torch", "onnx", "onnxsim", "onnxruntime"),
    "adopt ONNX graphs and quantize to INT8": ("onnx", "onnxsim", "onnxruntime"),
    "predict, verify and bench on the CPU": ("onnxruntime", "ort-cpu"),
    "predict on the GPU through ONNX Runtime": ("onnxruntime", "gpu", "ort-cuda"),
    "build and run TensorRT engines": ("tensorrt", "gpu"),
    "build TensorRT-RTX engines": ("tensorrt_rtx",),
}


def abilities(findings: Mapping[str, Finding]) -> tuple[list[str], list[tuple[str, str, str]]]:
    """What can be done here; and what cannot, each with the first reason and how to mend it."""
    can, cannot = [], []
    for sentence, needed in _ABILITIES.items():
        absent = next((name for name in needed if not _works(findings, name)), None)
        if absent is None:
            can.append(sentence)
        elif absent in findings:
            found = findings[absent]
            cannot.append((sentence, f"{absent}: {found.detail}", found.advice or ""))
        else:
            cannot.append((sentence, f"{absent} could not be tried", ""))
    return can, cannot


def _works(findings: Mapping[str, Finding], name: str) -> bool:
    return name in findings and findings[name].works is True


def _jetson() -> Iterator[Finding]:
    if line := jetson_line():
        yield Finding("jetson", None, line)


def _gpu() -> Finding:
    problem = cuda_problem()
    if problem is None:
        return Finding("gpu", True, gpu_line() or "CUDA driver and device found")
    return Finding(
        "gpu", False, problem, "install the NVIDIA driver, if this machine has an NVIDIA GPU"
    )


def _library(name: str, use: str) -> Finding:
    if find_spec(name) is None:
        return Finding(name, False, f"not installed (for {use})", _install(name))
    return Finding(name, True, _version(name))


def _onnxruntime() -> Iterator[Finding]:
    if find_spec("onnxruntime") is None:
        advice = _install("onnxruntime")
        yield Finding("onnxruntime", False, "not installed (for predict, quantize)", advice)
        return
    try:
        from resdeploy.deploy.ort import providers
    except ImportError as error:
        advice = f"pip uninstall -y onnxruntime onnxruntime-gpu && {_install('onnxruntime')}"
        yield Finding("onnxruntime", False, f"cannot be imported: {error}", advice)
        return
    if both := _two_onnxruntimes():
        yield both
    listed = ", ".join(name.removesuffix("ExecutionProvider") for name in providers())
    yield Finding("onnxruntime", True, f"{_version('onnxruntime')} (built with {listed})")
    yield _provider("ort-cpu")
    yield _provider("ort-cuda")


def _two_onnxruntimes() -> Finding | None:
    """Both packages install the folder onnxruntime: what was installed last has overwritten it."""
    names = ("onnxruntime", "onnxruntime-gpu")
    try:
        found = [f"{name} {version(name)}" for name in names]
    except PackageNotFoundError:
        return None
    from onnxruntime.capi import build_and_package_info

    wins = getattr(build_and_package_info, "package_name", "the one installed last")
    advice = f"pip uninstall -y {' '.join(names)} && {_install('onnxruntime')}"
    detail = f"{' and '.join(found)} are both installed and share one folder; {wins} is what runs"
    return Finding("onnxruntime twice", False, detail, advice)


def _provider(backend: Backend) -> Finding:
    """Run a real inference: being listed says nothing about libraries, driver or kernels."""
    from resdeploy.deploy.inference.ort_session import OrtSession

    if backend != "ort-cpu" and (problem := cuda_problem()):
        return Finding(backend, False, problem, "needs an NVIDIA GPU")
    try:
        with OrtSession(_CONVOLUTION_ONNX, backend=backend) as session:
            answer = session.run(np.ones((1, 1, 2, 2), np.float32))
    except ResdeployError as error:
        return Finding(backend, False, str(error), _install("onnxruntime"))
    right = bool((answer == 2).all())
    numbers = "the right numbers" if right else "wrong numbers"
    return Finding(backend, right, f"a test run gives {numbers}")


def _tensorrt(module: str) -> Finding:
    if find_spec(module) is None:
        advice = _install(module)
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


def _install(library: str) -> str:
    return install_command(extra_of(library))


def _version(library: str) -> str:
    return installed_version(library) or "version unknown"
