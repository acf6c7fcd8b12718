"""Writes docs/api-reference.md from the docstrings: `python examples/api_reference.py`."""

import ast
import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api-reference.md"
_PACKAGES = ("resdeploy.deploy", "resdeploy.export", "resdeploy.calibration")
_WIDTH = 88
_PLAIN = (int, float, str)
_Definition = ast.FunctionDef | ast.ClassDef


def reference() -> str:
    """The page: every public name with its signature and docstring, and its public methods."""
    parts = [
        "# Python, in full\n\nSignatures and docstrings of the names in [Python](api.md). "
        "Written by `examples/api_reference.py`;\na test sees that it is up to date.\n"
    ]
    for package in _PACKAGES:
        parts.append(f"## `{package}`\n")
        module = import_module(package)
        for name in module.__all__:
            definition = _definition(getattr(module, name))
            parts.append(_entry("###", name, definition))
            parts += [_entry("####", f"{name}.{d.name}", d) for d in _public_methods(definition)]
    return "\n".join(parts)


def _definition(value: object) -> _Definition:
    """The `def` or `class` statement of a function or class, as it stands in its file."""
    assert inspect.isfunction(value) or inspect.isclass(value)
    (statement,) = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    assert isinstance(statement, _Definition)
    _Constants(vars(inspect.getmodule(value))).visit(statement)
    return statement


class _Constants(ast.NodeTransformer):
    """Puts plain values where a module's constants stand: a reader does not know DEFAULT_TOP."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self._names.get(node.id)
        return ast.Constant(value) if node.id.isupper() and type(value) in _PLAIN else node


def _public_methods(definition: _Definition) -> list[ast.FunctionDef]:
    """Those of a class that have a docstring; of an overloaded one, the last definition."""
    if not isinstance(definition, ast.ClassDef):
        return []
    methods = [statement for statement in definition.body if isinstance(statement, ast.FunctionDef)]
    return [m for m in methods if not m.name.startswith("_") and ast.get_docstring(m)]


def _entry(heading: str, name: str, definition: _Definition) -> str:
    text = ast.get_docstring(definition) or ""
    signature = _signature(definition).replace("'", '"')  # as the formatter writes it
    return f"{heading} `{name}`\n\n```python\n{signature}\n```\n\n{_markdown(text)}\n"


def _signature(definition: _Definition) -> str:
    """The call of a function or the fields of a class, over several lines where one is too long."""
    if isinstance(definition, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in definition.bases)
        fields = [ast.unparse(s) for s in definition.body if isinstance(s, ast.AnnAssign)]
        head = f"class {definition.name}" + (f"({bases})" if bases else "")
        return "\n    ".join([head + (":" if fields else ""), *fields])
    decorators = {ast.unparse(decorator) for decorator in definition.decorator_list}
    arguments = _arguments(definition.args)
    returns = f" -> {ast.unparse(definition.returns)}" if definition.returns else ""
    if "property" in decorators:
        return f"{definition.name}{returns}"
    line = f"{definition.name}({', '.join(arguments)}){returns}"
    if len(line) <= _WIDTH:
        return line
    listed = "".join(f"    {argument},\n" for argument in arguments)
    return f"{definition.name}(\n{listed}){returns}"


def _arguments(arguments: ast.arguments) -> list[str]:
    """Each argument with its annotation and default, without `self` and `cls`."""
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(positional) - len(arguments.defaults))
    listed = [
        _argument(argument, default)
        for argument, default in zip(positional, [*missing, *arguments.defaults], strict=True)
        if argument.arg not in ("self", "cls")
    ]
    if arguments.vararg or arguments.kwonlyargs:
        listed.append(f"*{_argument(arguments.vararg, None)}" if arguments.vararg else "*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return listed + [_argument(argument, default) for argument, default in pairs]


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _markdown(docstring: str) -> str:
    """Google's sections become a bold line and a list; the rest is Markdown already."""
    lines: list[str] = []
    in_section = False
    for line in docstring.splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line):
            in_section = True
            lines += [f"**{line.rstrip(':')}**", ""]
        elif in_section and re.match(r" {4}\w[\w, *]*:", line):
            names, _, rest = line.strip().partition(":")
            lines.append(f"* `{names}`:{rest}")
        else:
            in_section = in_section and (not line or line.startswith(" "))
            lines.append(f"  {line.strip()}".rstrip() if in_section else line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
