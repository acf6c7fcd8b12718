"""The layout is kept: each import contract fails when it is violated, and there is no circle."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("deploy", "export", "calibration")
_FILES_AT_MOST = 16
_LINES_OF_A_MODULE = 300
_LINES_OF_A_FUNCTION = 40

# how the contracts' names begin
_BETWEEN = "calibration may import export"
_DEPLOY = "deploy:"
_EXPORT = "export:"
_CALIBRATION = "calibration:"
_TORCH = "torch belongs to export"
_ONNX = "deploy runs without onnx"
_CONTRACTS = (_BETWEEN, _DEPLOY, _EXPORT, _CALIBRATION, _TORCH, _ONNX)

_PLAIN = "\nimport {name}\n"
_IN_A_FUNCTION = "\ndef _late() -> None:\n    import {name}\n"
_FOR_TYPES = "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {name}\n"

# (the contract, the file that violates it, how, what it imports)
_VIOLATIONS = [
    (_BETWEEN, "deploy/images/labels.py", _PLAIN, "resdeploy.export.pipeline"),
    (_BETWEEN, "deploy/verification/verify.py", _IN_A_FUNCTION, "resdeploy.calibration.pipeline"),
    (_BETWEEN, "export/graph/names.py", _FOR_TYPES, "resdeploy.calibration.job"),
    (_DEPLOY, "deploy/metrics/timing.py", _PLAIN, "resdeploy.deploy.images.labels"),
    (_DEPLOY, "deploy/engine/build.py", _IN_A_FUNCTION, "resdeploy.deploy.inference.open"),
    (_DEPLOY, "deploy/benchmark/bench.py", _FOR_TYPES, "resdeploy.deploy.verification.checks.gate"),
    (_EXPORT, "export/graph/names.py", _IN_A_FUNCTION, "resdeploy.export.checkpoint.read"),
    (_CALIBRATION, "calibration/ranges/ranges.py", _PLAIN, "resdeploy.calibration.repair.budget"),
    (_TORCH, "calibration/job.py", _IN_A_FUNCTION, "torch"),
    (_TORCH, "deploy/session.py", _FOR_TYPES, "torch"),
    (_ONNX, "deploy/ort.py", _PLAIN, "onnx"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what import-linter reads."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(_ROOT / "pyproject.toml", copy)
    for name in ("src", *_PACKAGES):
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(_ROOT / name, copy / name, symlinks=True, ignore=unwanted)
    return copy


@contextmanager
def _appended(file: Path, text: str) -> Iterator[None]:
    original = file.read_text(encoding="utf-8")
    file.write_text(original + text, encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(original, encoding="utf-8")


def _output(root: Path, *words: str) -> str:
    """What a Python program prints to which `resdeploy` is the tree at `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    return done.stdout


def _broken(root: Path) -> set[str]:
    """The contracts that the tree breaks."""
    program = "import sys; from importlinter.cli import lint_imports_command as main; main()"
    output = _output(root, "-c", program)
    verdicts = dict(re.findall(r"^(.*?) (KEPT|BROKEN)\b", output, re.MULTILINE))
    assert set(verdicts) == set(_names()), output
    broken = [name for name, verdict in verdicts.items() if verdict == "BROKEN"]
    return {begin for begin in _CONTRACTS for name in broken if name.startswith(begin)}


def _names() -> list[str]:
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]]


def _imports(root: Path) -> dict[str, list[str]]:
    """Module → the modules of resdeploy that it imports, in functions and for types too."""
    program = (
        "import grimp, json; graph = grimp.build_graph('resdeploy', cache_dir=None)\n"
        "found = {name: sorted(graph.find_modules_directly_imported_by(name))"
        " for name in graph.modules}\n"
        "print(json.dumps(found))"
    )
    imports: dict[str, list[str]] = json.loads(_output(root, "-c", program))
    return imports


def _check_no_circle(imports: dict[str, list[str]]) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(reversed(error.args[1]))}")


def test_every_contract_has_a_violation_here() -> None:
    violated = {contract for contract, *_ in _VIOLATIONS}
    for name in _names():
        assert sum(name.startswith(begin) for begin in violated) == 1, name


def test_no_contract_is_broken(tree: Path) -> None:
    assert _broken(tree) == set()


@pytest.mark.slow
@pytest.mark.parametrize(("contract", "file", "how", "name"), _VIOLATIONS)
def test_a_violation_breaks_its_contract(
    tree: Path, contract: str, file: str, how: str, name: str
) -> None:
    with _appended(tree / file, how.format(name=name)):
        assert contract in _broken(tree)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "contract"), [
    ("deploy", _DEPLOY), ("export", _EXPORT), ("calibration", _CALIBRATION)
])  # fmt: skip
def test_a_file_without_a_place_in_the_order_breaks_its_contract(
    tree: Path, package: str, contract: str
) -> None:
    added = tree / package / "added.py"
    added.write_text('"""Added."""\n', encoding="utf-8")
    try:
        assert _broken(tree) == {contract}
    finally:
        added.unlink()


def test_there_is_no_import_circle(tree: Path) -> None:
    imports = _imports(tree)
    assert len(imports) > 100
    _check_no_circle(imports)


@pytest.mark.slow
@pytest.mark.parametrize("how", [_PLAIN, _IN_A_FUNCTION, _FOR_TYPES])
def test_a_circle_is_found(tree: Path, how: str) -> None:
    assert "resdeploy.deploy.specs" in _imports(tree)["resdeploy.deploy.session"]
    back = how.format(name="resdeploy.deploy.session")
    with (
        _appended(tree / "deploy" / "specs.py", back),
        pytest.raises(pytest.fail.Exception, match=r"circle: .*deploy\.specs"),
    ):
        _check_no_circle(_imports(tree))


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_folder_holds_more_files_than_one_sees_at_a_glance(package: str) -> None:
    folders = {file.parent for file in (_ROOT / package).rglob("*.py")}
    crowded = {folder.name for folder in folders if len(list(folder.glob("*.py"))) > _FILES_AT_MOST}
    assert folders and not crowded


@pytest.mark.parametrize("package", _PACKAGES)
def test_modules_and_functions_are_short(package: str) -> None:
    long = []
    for file in sorted((_ROOT / package).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        name = file.relative_to(_ROOT).as_posix()
        if len(text.splitlines()) > _LINES_OF_A_MODULE:
            long.append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > _LINES_OF_A_FUNCTION:
                    long.append(f"{name}: {node.name}")
    assert not long
