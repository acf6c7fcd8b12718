"""The public names are those that docs/api.md lists, and each can be imported."""

import os
import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import resdeploy
import resdeploy.calibration
import resdeploy.deploy
from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.reading import StrPath
from resdeploy.export import AdoptOptions, ExportOptions, adopt, export_checkpoint

_PAGE = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
_PACKAGES = ("resdeploy.deploy", "resdeploy.export", "resdeploy.calibration")


def _documented(package: str) -> list[str]:
    """The names in the table under the package's heading."""
    section = _PAGE.partition(f"## `{package}`\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \| \S", section, re.MULTILINE)


def test_the_page_has_a_section_for_every_package_and_no_other() -> None:
    assert tuple(re.findall(r"^## `([\w.]+)`$", _PAGE, re.MULTILINE)) == _PACKAGES


@pytest.mark.parametrize("package", _PACKAGES)
def test_public_names_are_the_documented_ones(package: str) -> None:
    public = import_module(package).__all__
    assert list(public) == sorted(public)
    assert _documented(package) == list(public)


@pytest.mark.parametrize("package", _PACKAGES)
def test_every_public_name_has_a_home_and_a_docstring(package: str) -> None:
    module = import_module(package)
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
        # a module of the same name would take its place as soon as it is imported
        assert callable(getattr(module, name)), name


@pytest.mark.parametrize("package", ["resdeploy", *_PACKAGES])
def test_other_names_are_refused(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'absent'"):
        _ = import_module(package).absent


def test_the_version_is_that_of_the_distribution() -> None:
    assert resdeploy.__version__ == version("resdeploy")


class _Named(os.PathLike[str]):
    """A path of another library."""

    def __fspath__(self) -> str:
        return "absent.bundle"


@pytest.mark.parametrize("path", ["absent.bundle", _Named()], ids=["text", "PathLike"])
@pytest.mark.parametrize("name", ["load", "read_bundle", "verify", "assert_accuracy", "quantize"])
def test_a_bundle_may_be_named_by_text_or_by_anything_that_is_a_path(
    name: str, path: StrPath
) -> None:
    function = getattr(resdeploy.deploy, name, resdeploy.calibration.quantize)
    more = (None,) if name == "quantize" else ()
    with pytest.raises(ResdeployError, match=r"absent\.bundle: no such bundle"):
        function(path, *more)


@pytest.mark.parametrize("path", ["absent.bundle", _Named()], ids=["text", "PathLike"])
def test_so_may_what_is_exported_and_the_files_of_its_options(path: StrPath) -> None:
    options: Any = {"output": path, "classes": path, "data": path}  # typed as what they become
    assert ExportOptions(**options).output == Path("absent.bundle")
    assert AdoptOptions(**options).data == Path("absent.bundle")
    with pytest.raises(ResdeployError, match=r"absent\.bundle"):
        export_checkpoint(path)
    with pytest.raises(ResdeployError, match=r"absent\.bundle"):
        adopt(path)
