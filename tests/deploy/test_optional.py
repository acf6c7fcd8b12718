"""A library that is not installed becomes one line; a broken one stays the fault it is."""

from importlib.metadata import PackageNotFoundError

import pytest

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import MissingDependencyError, ResdeployError
from resdeploy.deploy.installation import install_command
from resdeploy.deploy.optional import (
    extra_of,
    installed_version,
    installed_versions,
    lazy_names,
    needs,
)


def _missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("library", "extra", "exit_code"),
    [
        ("torch", "export", 1),
        ("onnxruntime.capi", "cpu" if cuda_problem() else "runtime", 4),
        ("tensorrt_rtx", "tensorrt-rtx", 4),
        ("uvicorn", "http", 1),
    ],
)
def test_the_line_names_the_extra(library: str, extra: str, exit_code: int) -> None:
    with pytest.raises(MissingDependencyError) as info, needs("this"):
        raise _missing(library)
    name = library.partition(".")[0]
    assert str(info.value) == (
        f"this needs {name}, which is not installed: {install_command(extra)}"
    )
    assert info.value.exit_code == exit_code
    assert isinstance(info.value, ResdeployError) and isinstance(info.value, ImportError)


def test_other_failures_pass_through() -> None:
    for error in (_missing("json5"), ImportError("undefined symbol"), ValueError()):
        with pytest.raises(type(error)) as info, needs("this"):
            raise error
        assert info.value is error


def test_lazy_names() -> None:
    get = lazy_names("resdeploy.deploy", {"Precision": "specs"})
    from resdeploy.deploy.specs import Precision

    assert get("Precision") is Precision
    with pytest.raises(AttributeError, match=r"module 'resdeploy\.deploy' has no attribute 'x'"):
        get("x")


def test_versions_are_found_under_any_distribution_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if name == "onnxruntime-gpu":
            return "1.27.0"
        raise PackageNotFoundError(name)

    monkeypatch.setattr("resdeploy.deploy.optional.version", installed)
    assert installed_version("onnxruntime") == "1.27.0"
    assert installed_versions(("onnxruntime", "torch")) == {"onnxruntime": "1.27.0"}


def test_no_second_onnxruntime_where_one_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` brings onnxruntime-gpu, which overwrites the onnxruntime of `cpu`."""
    assert extra_of("grpc") == "http"
    monkeypatch.setattr("resdeploy.deploy.optional.installed_version", lambda library: None)
    assert extra_of("grpc") == "serve"


def test_the_extra_of_a_library() -> None:
    assert (extra_of("torch"), extra_of("tensorrt_rtx")) == ("export", "tensorrt-rtx")
