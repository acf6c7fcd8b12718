"""The two TensorRTs: how each is imported, which version it is, and who decides precision in it.

Precision is decided in one of two ways, and there is one path of code for each:

    weak     TensorRT 8 and 10: the graph is float (or float with Q/DQ), and builder flags allow
             the builder to use half precision and int8
    strong   TensorRT 11 and TensorRT-RTX always, 10 when asked: the types in the graph are law

Which way a version has is read from the flags it knows: their numbers moved between versions,
their names did not.
"""

import re
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, get_args

from resdeploy.deploy.errors import BackendError, EngineError, MissingDependencyError
from resdeploy.deploy.installation import install_command
from resdeploy.deploy.machine import jetson_line
from resdeploy.deploy.specs import Precision, Variant
from resdeploy.deploy.targets import TENSORRT

Flavor = Literal["tensorrt", "tensorrt-rtx"]
FLAVORS: tuple[Flavor, ...] = get_args(Flavor)
Typing = Literal["weak", "strong"]

_MODULES: dict[Flavor, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

# The graph each way of typing reads for a precision, best first.
VARIANTS_READ: dict[Typing, dict[Precision, tuple[Variant, ...]]] = {
    "weak": {"fp32": ("fp32",), "fp16": ("fp32",), "int8": (TENSORRT.variant,)},
    "strong": {"fp32": ("fp32",), "fp16": ("fp16",), "int8": TENSORRT.variants[::-1]},
}


def is_installed(flavor: Flavor) -> bool:
    """Whether the library is on this Python's path; importing it may still fail."""
    return find_spec(_MODULES[flavor]) is not None


def import_tensorrt(flavor: Flavor) -> ModuleType:
    """The flavour's module.

    Raises:
        MissingDependencyError: not installed; the message names the command that brings it.
        BackendError: installed, but it does not fit this system (a library of it is missing).
    """
    name = _MODULES[flavor]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise BackendError(f"{name} cannot be imported: {error}: install it again") from error
        raise MissingDependencyError(missing_message(flavor), exit_code=4) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(f"{name} cannot be imported: {_import_reason(error)}") from error


def missing_message(flavor: Flavor, *, this: bool = False) -> str:
    """What to do about a flavour that is not installed, on this kind of machine.

    With `this` no other will do, as for an engine that was built with it.
    """
    if flavor == "tensorrt" and jetson_line():
        # the wheel on PyPI is not for Jetsons; JetPack installs one for the system's Python only
        return (
            "tensorrt is not visible to this Python; JetPack installs it for the system's Python: "
            "make the environment with python3 -m venv --system-site-packages .venv"
        )
    advice = install_command(flavor)
    other = next(name for name in FLAVORS if name != flavor)
    if not this and is_installed(other):
        advice += f", or use {other}, which is installed"
    return f"{flavor} is not installed: {advice}"


def version_numbers(trt: Any) -> tuple[int, ...]:
    """The version as integers, e.g. (10, 3, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", trt.__version__)[:4])


def typing_of(trt: Any, *, strongly_typed: bool = False) -> Typing:
    """The way this library types a network; `strongly_typed` asks for it where both exist.

    Raises:
        EngineError: strong typing asked of a version that has only weak typing.
    """
    if not hasattr(trt.BuilderFlag, "FP16"):
        return "strong"
    if not strongly_typed:
        return "weak"
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise EngineError(
            f"TensorRT {trt.__version__} has no strongly typed networks (they need 10.0): "
            "build without --strongly-typed"
        )
    return "strong"


def network_flags(trt: Any, typing: Typing) -> int:
    """The argument of `create_network`: 8 must be told of explicit batches, 11 knows no choice."""
    flags = trt.NetworkDefinitionCreationFlag
    if not hasattr(flags, "STRONGLY_TYPED"):
        return 1 << int(flags.EXPLICIT_BATCH)
    if typing == "strong" and hasattr(trt.BuilderFlag, "FP16"):
        return 1 << int(flags.STRONGLY_TYPED)
    return 0


def _import_reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "libnvdla_compiler" in text:
        return f"{text}: this TensorRT belongs to another JetPack: use the one of this system"
    if "cannot open shared object file" in text:
        return f"{text}: a library of it is missing: install it again, with its dependencies"
    return f"{text}: install it again"
