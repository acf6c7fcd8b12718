"""What is installed is what the repository holds, in all three ways of installing it.

The sdist is made from a copy of the working tree, the wheel from the unpacked sdist, as pip does.
Nothing is downloaded: environments are filled from the distributions installed here.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from email import message_from_string
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("deploy", "export", "calibration")
_VERSION = re.findall(r'^version = "(.+)"$', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)[
    0
]
_BASE = ("click", "numpy", "pillow", "rich")
# Without the paths that a developer's shell adds, so that what is imported is what was installed.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CODE_OF_CONDUCT.md",
          "SECURITY.md")  # fmt: skip
_BESIDES = ("LICENSE", "CITATION.cff", "MANIFEST.in", "Makefile", "mkdocs.yml", "action.yml",
            ".pre-commit-hooks.yaml", "packaging")  # fmt: skip
_SOURCES = ("pyproject.toml", *_PAGES, *_BESIDES, "docs", "examples", "src", *_PACKAGES)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what setuptools reads, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("tree")
    for name in _SOURCES:
        source = _ROOT / name
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, copy / name, symlinks=True, ignore=unwanted)
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
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd,
                          env=_ENVIRONMENT)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _project_modules() -> set[str]:
    """Every module as the wheel names it: `resdeploy/…`."""
    top = {f"resdeploy/{file.name}" for file in (_ROOT / "src" / "resdeploy").glob("*.py")}
    return top | {
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
    assert "resdeploy/export/architectures/constructed/signatures.json.gz" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"resdeploy", f"resdeploy-{_VERSION}.dist-info"}


def test_sdist_holds_every_module_the_licence_and_the_readme(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    modules = {
        name.removeprefix("resdeploy/") if name.count("/") > 1 else f"src/{name}"
        for name in _project_modules()
    }
    assert modules | {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert {name for name in names if re.match(r"src/\w+/.*/", name)} == set()  # nothing twice


def test_base_install_requires_four_light_libraries(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    base = {r.name for r in requirements if "extra" not in str(r.marker or "")}
    assert base == set(_BASE)
    torch = next(r.specifier for r in requirements if r.name == "torch")
    assert torch.contains("2.7.1") and not torch.contains("2.13.0")
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_base_install_runs_and_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "env", _BASE)
    _install(python, wheel)
    command = python.with_name("resdeploy")
    assert "export" in _run(command, "--help", cwd=tmp_path)
    _run(python, "-c", "from resdeploy.deploy import load; import resdeploy.export, "
         "resdeploy.calibration", cwd=tmp_path)  # fmt: skip
    program = "import resdeploy; print(resdeploy.__version__)"
    assert _run(python, "-c", program, cwd=tmp_path).strip() == _VERSION
    shown = _run(python, "-m", "resdeploy", "--version", cwd=tmp_path)
    assert shown.split()[-1] == _VERSION
    shutil.copy(_ROOT / "examples" / "digits_mobilenet_v2.pth", tmp_path / "net.pth")
    failed = subprocess.run([command, "export", "net.pth"], cwd=tmp_path, capture_output=True,
                            text=True, env=_ENVIRONMENT)  # fmt: skip
    assert failed.returncode == 1
    hint = re.search(r"^error: .*: pip install '(.*\.whl\[export\])'$", failed.stderr.strip())
    assert hint  # works as printed: it names the wheel that was installed
    _run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--dry-run", hint[1])


def test_editable_install_runs_the_working_tree(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy, symlinks=True)
    python = _environment(tmp_path / "env", (*_BASE, "setuptools"))
    _install(python, "--editable", copy)
    (copy / "deploy" / "written_later.py").write_text("ANSWER = 42\n")
    program = "import resdeploy.deploy.written_later as m, resdeploy.export; print(m.__file__)"
    shown = _run(python, "-c", program, cwd=tmp_path)
    assert Path(shown.strip()).resolve() == copy / "deploy" / "written_later.py"
    assert "export" in _run(python.with_name("resdeploy"), "--help", cwd=tmp_path)
    assert "export" in _run(python, "-m", "resdeploy", "--help", cwd=tmp_path)


def test_the_sdist_has_the_documentation_and_the_examples(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "docs", "examples", *_PAGES, *_BESIDES],
        cwd=_ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert len(tracked) > 30 and not set(tracked) - names


def test_an_index_would_show_the_readme(built: Path) -> None:
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir()))


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    digests: list[tuple[str, str]] = []
    for name in ("one", "two"):
        copy = tmp_path / name / "tree"
        shutil.copytree(tree, copy, symlinks=True)
        for path in copy.rglob("*"):  # as if checked out at another time
            os.utime(path, (len(digests) + 1.6e9,) * 2, follow_symlinks=False)
        where = ("--outdir", str(tmp_path / name), str(copy))
        command = [sys.executable, "-m", "build", "--no-isolation", *where]
        environment = {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        wheel, sdist = (next((tmp_path / name).glob(end)) for end in ("*.whl", "*.tar.gz"))
        digests.append((sha256(wheel.read_bytes()).hexdigest(), _content(sdist)))
    assert digests[0] == digests[1]


def _content(sdist: Path) -> str:
    """A hash over the files of an sdist; their times in the archive are those of the checkout."""
    digest = sha256()
    with tarfile.open(sdist) as archive:
        for member in sorted(archive.getmembers(), key=lambda found: found.name):
            file = archive.extractfile(member) if member.isfile() else None
            digest.update(member.name.encode() + (file.read() if file else b""))
    return digest.hexdigest()
