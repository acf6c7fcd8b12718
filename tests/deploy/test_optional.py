"""A library that is not installed becomes one line; a broken one stays the fault it is."""

import pytest

from resdeploy.deploy.errors import MissingDependencyError, ResdeployError
from resdeploy.deploy.optional import lazy_names, needs


def _missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("library", "extra", "exit_code"),
    [
        ("torch", "export", 1),
        ("onnxruntime.capi", "runtime", 4),
        ("tensorrt_rtx", "tensorrt-rtx", 4),
        ("uvicorn", "serve", 1),
    ],
)
def test_the_line_names_the_extra(library: str, extra: str, exit_code: int) -> None:
    with pytest.raises(MissingDependencyError) as info, needs("this"):
        raise _missing(library)
    name = library.partition(".")[0]
    assert str(info.value) == (
        f"this needs {name}, which is not installed: pip install 'resdeploy[{extra}]'"
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
