"""Imports late: public names when first used, and optional libraries with advice when missing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from resdeploy.deploy.errors import MissingDependencyError

# library -> (the extra that brings it, the exit code when it is missing: 4 for a backend)
_EXTRAS: dict[str, tuple[str, int]] = {
    "onnxruntime": ("runtime", 4),
    "tensorrt": ("tensorrt", 4),
    "tensorrt_rtx": ("tensorrt-rtx", 4),
    "torch": ("export", 1),
    "torchvision": ("export", 1),
    "onnx": ("export", 1),
    "onnx_ir": ("export", 1),
    "onnxsim": ("export", 1),
    "onnxscript": ("export", 1),
    "safetensors": ("export", 1),
    "threadpoolctl": ("export", 1),
    "jinja2": ("report", 1),
    "matplotlib": ("report", 1),
    "starlette": ("serve", 1),
    "uvicorn": ("serve", 1),
}


@contextmanager
def needs(what: str) -> Iterator[None]:
    """Import optional libraries inside this block; `what` begins the message, e.g. "export".

    Only a library that is not installed is translated. An import that fails inside an installed
    library is a real fault and passes through unchanged.

    Raises:
        MissingDependencyError: with the `pip install` line; exit code 4 for an inference backend.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRAS:
            raise
        extra, exit_code = _EXTRAS[library]
        raise MissingDependencyError(
            f"{what} needs {library}, which is not installed: pip install 'resdeploy[{extra}]'",
            exit_code=exit_code,
        ) from error


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose public names load their module on first use.

    Args:
        package: the package's `__name__`.
        homes: public name -> module of the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get
