"""What is installed is what the repository holds, in all three ways of installing it.

The sdist is made from a copy of the working tree, the wheel from the unpacked sdist, as pip does.
Nothing is downloaded: environments are filled from the distributions installed here.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from email import message_from_string
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("deploy", "export", "calibration")
_BASE = ("click", "numpy", "pillow", "rich")
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", *_PACKAGES)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what setuptools reads, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("tree")
    for name in _SOURCES:
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope="session")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sdist and one wheel."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, tree)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _project_modules() -> set[str]:
    return {
        f"resdeploy/{file.relative_to(_ROOT).as_posix()}"
        for package in _PACKAGES
        for file in (_ROOT / package).rglob("*.py")
    }


def _environment(folder: Path, requirements: Iterable[str]) -> Path:
    """An environment with these distributions and what they require; returns its Python.

    The packages are links to those installed here, so this downloads and copies nothing.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
                         ).strip())  # fmt: skip
    for name in _closure(requirements):
        found = distribution(name)
        home = Path(str(found.locate_file("")))
        tops = {file.parts[0] for file in found.files or () if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(home / top)
    return python


def _closure(requirements: Iterable[str]) -> set[str]:
    closed: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in closed:
            closed.add(requirement.name)
            waiting += map(Requirement, distribution(requirement.name).requires or ())
    return closed


def _install(python: Path, *what: str | Path) -> None:
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
         "--no-index", "--no-build-isolation", "--disable-pip-version-check", *what)  # fmt: skip


def test_wheel_holds_every_module_and_nothing_beside_resdeploy(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if name.endswith(".py")} == _project_modules()
    assert {f"resdeploy/{package}/py.typed" for package in _PACKAGES} <= set(names)
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"resdeploy", f"resdeploy-{version('resdeploy')}.dist-info"}


def test_sdist_holds_every_module_the_licence_and_the_readme(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    modules = {name.removeprefix("resdeploy/") for name in _project_modules()}
    assert modules | {"LICENSE", "README.md", "pyproject.toml"} <= names


def test_base_install_requires_four_light_libraries(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    base = {r.name for r in requirements if "extra" not in str(r.marker or "")}
    assert base == set(_BASE)
    torch = next(r.specifier for r in requirements if r.name == "torch")
    assert torch.contains("2.14.0") and not torch.contains("2.13.0")
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_base_install_runs_and_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "env", _BASE)
    _install(python, wheel)
    command = python.with_name("resdeploy")
    assert "export" in _run(command, "--help", cwd=tmp_path)
    _run(python, "-c", "from resdeploy.deploy import load; import resdeploy.export, "
         "resdeploy.calibration", cwd=tmp_path)  # fmt: skip
    (tmp_path / "net.pth").write_bytes(b"")
    failed = subprocess.run([command, "export", "net.pth"], cwd=tmp_path, capture_output=True,
                            text=True)  # fmt: skip
    assert failed.returncode == 1
    assert re.search(r"^error: .*pip install 'resdeploy\[export\]'$", failed.stderr.strip())


def test_editable_install_runs_the_working_tree(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    python = _environment(tmp_path / "env", (*_BASE, "setuptools"))
    _install(python, "--editable", copy)
    (copy / "deploy" / "written_later.py").write_text("ANSWER = 42\n")
    program = "import resdeploy.deploy.written_later as m, resdeploy.export; print(m.__file__)"
    shown = _run(python, "-c", program, cwd=tmp_path)
    assert Path(shown.strip()) == copy / "deploy" / "written_later.py"
    assert "export" in _run(python.with_name("resdeploy"), "--help", cwd=tmp_path)
