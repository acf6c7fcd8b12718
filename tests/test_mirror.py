"""Tests mirror the tree: whatever behaves has tests in a file of its name.

A module that only declares has nothing to try: `deploy/images/spread.py` is a Protocol, which the
tests of the pool run, and `export/architectures/preact/layout.py` is fields, which those of the
families fill.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]

# tests of these stand elsewhere, each for the reason given
_ELSEWHERE = {
    "__init__": "the public names of a package, which test_api.py and test_imports.py hold",
}


def _modules_that_behave(package: str) -> Iterator[Path]:
    """Those that hold more than declarations: a function, or a class with a method."""
    for file in sorted((_ROOT / package).rglob("*.py")):
        if _behaves(ast.parse(file.read_text(encoding="utf-8"))):
            yield file.relative_to(_ROOT)


def _behaves(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef) and any(ast.unparse(b) == "Protocol" for b in node.bases):
        return False
    function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return function or any(map(_behaves, ast.iter_child_nodes(node)))


@pytest.mark.parametrize("package", ["deploy", "export", "calibration"])
def test_every_module_that_behaves_has_a_test_file_of_its_name(package: str) -> None:
    missing = [
        str(module)
        for module in _modules_that_behave(package)
        if module.stem not in _ELSEWHERE
        and not (_ROOT / "tests" / module.parent / f"test_{module.stem}.py").is_file()
    ]
    assert missing == []
