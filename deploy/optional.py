"""Imports late: public names when first used, and optional libraries with advice when missing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from resdeploy.deploy.errors import EXIT_BACKEND_MISSING, EXIT_FIXABLE, MissingDependencyError
from resdeploy.deploy.installation import install_command

# library -> (the extra that brings it, the exit code when it is missing)
_EXTRAS: dict[str, tuple[str, int]] = {
    "onnxruntime": ("runtime", EXIT_BACKEND_MISSING),
    "tensorrt": ("tensorrt", EXIT_BACKEND_MISSING),
    "tensorrt_rtx": ("tensorrt-rtx", EXIT_BACKEND_MISSING),
    "torch": ("export", EXIT_FIXABLE),
    "torchvision": ("export", EXIT_FIXABLE),
    "onnx": ("export", EXIT_FIXABLE),
    "onnx_ir": ("export", EXIT_FIXABLE),
    "onnxsim": ("export", EXIT_FIXABLE),
    "onnxscript": ("export", EXIT_FIXABLE),
    "safetensors": ("export", EXIT_FIXABLE),
    "threadpoolctl": ("export", EXIT_FIXABLE),
    "jinja2": ("report", EXIT_FIXABLE),
    "matplotlib": ("report", EXIT_FIXABLE),
    "cryptography": ("sign", EXIT_FIXABLE),
    "huggingface_hub": ("hub", EXIT_FIXABLE),
    "ray": ("ray", EXIT_FIXABLE),
    "pyarrow": ("ray", EXIT_FIXABLE),
    "fsspec": ("ray", EXIT_FIXABLE),
    "grpc": ("serve", EXIT_FIXABLE),
    "google": ("serve", EXIT_FIXABLE),
    "httptools": ("serve", EXIT_FIXABLE),
    "prometheus_client": ("serve", EXIT_FIXABLE),
    "starlette": ("serve", EXIT_FIXABLE),
    "uvicorn": ("serve", EXIT_FIXABLE),
}

# the names under which some libraries come, besides their own
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx",),
}


def extra_of(library: str) -> str:
    """The extra that brings an optional library, e.g. "export" for torch.

    Of the two that bring ONNX Runtime, the small one where there is no NVIDIA GPU; and none where
    it is there: its two distributions overwrite each other.
    """
    from resdeploy.deploy.cuda import cuda_problem  # asks the driver: only when there is a need

    extra, _ = _EXTRAS[library]
    if extra == "serve" and installed_version("onnxruntime"):
        return "http"
    return "cpu" if extra == "runtime" and cuda_problem() else extra


def installed_version(library: str) -> str | None:
    """The version of an installed library, whatever its distribution is called; None without it."""
    for distribution in (library, *_DISTRIBUTIONS.get(library, ())):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def installed_versions(libraries: Iterable[str]) -> dict[str, str]:
    """The versions of those libraries that are installed."""
    found = ((name, installed_version(name)) for name in libraries)
    return {name: number for name, number in found if number is not None}


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
        extra, exit_code = extra_of(library), _EXTRAS[library][1]
        raise MissingDependencyError(
            f"{what} needs {library}, which is not installed: {install_command(extra)}",
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
