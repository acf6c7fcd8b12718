"""The documentation says what the commands do: checked against the commands themselves."""

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from resdeploy.deploy import Classifier
from resdeploy.deploy.cli import cli
from resdeploy.deploy.errors import ResdeployError

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
_CONTEXT = click.Context(cli)
_NAMES = cli.list_commands(_CONTEXT)


def _command(name: str) -> click.Command:
    command = cli.get_command(_CONTEXT, name)
    assert command is not None, f"{name} is not a command"
    return command


def _page(name: str) -> str:
    return (_ROOT / name).read_text(encoding="utf-8")


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def _shell_lines() -> Iterator[tuple[str, list[str]]]:
    """Every line that the pages, the commands' examples and the demo tell a user to type."""
    for name in _PAGES:
        for block in _blocks(_page(name), "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    yield name, shlex.split(line[2:], comments=True)
    for name in _NAMES:
        example = (_command(name).epilog or "").partition("Example: ")[2]
        for line in example.split("&&"):
            yield f"{name} --help", shlex.split(line)


def _check_resdeploy_line(words: list[str]) -> None:
    """Parse the words after `resdeploy` as click would, without running anything."""
    if words[0].startswith("-"):
        assert words[0] in {opt for parameter in cli.params for opt in parameter.opts} | {"--help"}
        return
    command = _command(words[0])
    if "--help" not in words:
        # missing files are the reader's; resilient parsing skips callbacks and required values
        command.make_context(words[0], words[1:], parent=_CONTEXT, resilient_parsing=True)


def test_there_are_commands_and_lines_to_check() -> None:
    assert {"export", "predict", "inspect", "doctor"} <= set(_NAMES)
    typed = [words[0] for _, words in _shell_lines()]
    assert typed.count("resdeploy") > len(_NAMES)


@pytest.mark.parametrize("name", _NAMES)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    command = _command(name)
    assert command.help
    assert f"Example: resdeploy {name} " in f"{command.epilog} "


@pytest.mark.parametrize("name", _NAMES)
def test_every_command_stands_in_the_readmes_table(name: str) -> None:
    assert re.search(rf"^\| `resdeploy {name}\b[^`]*` \|", _page("README.md"), re.MULTILINE)


def test_the_readmes_table_holds_only_commands_that_exist() -> None:
    named = re.findall(r"^\| `resdeploy (\w+)", _page("README.md"), re.MULTILINE)
    assert sorted(named) == sorted(_NAMES)


def test_shell_lines_use_commands_options_and_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", _page("Makefile"), re.MULTILINE))
    for place, words in _shell_lines():
        if words[0] == "make":
            assert words[1] in targets, f"{place}: {shlex.join(words)}"
        elif words[0] == "resdeploy":
            try:
                _check_resdeploy_line(words[1:])
            except (click.ClickException, AssertionError) as error:
                pytest.fail(f"{place}: {shlex.join(words)}: {error}")


def test_options_named_in_the_text_exist() -> None:
    known = {opt for name in _NAMES for p in _command(name).params for opt in p.opts}
    known |= {opt for parameter in cli.params for opt in parameter.opts} | {"--help"}
    text = re.sub(r"^```.*?^```", "", _page("README.md"), flags=re.MULTILINE | re.DOTALL)
    named = {found for span in re.findall(r"`([^`\n]+)`", text) for found in
             re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)}  # fmt: skip
    assert named <= known


def test_extras_named_in_the_text_exist() -> None:
    extras = set(re.findall(r"\[([a-z-]+)\]'", _page("README.md")))
    offered = re.search(r"^\[project.optional-dependencies\]\n(.*?)^\[", _page("pyproject.toml"),
                        re.MULTILINE | re.DOTALL)  # fmt: skip
    assert offered
    assert extras <= set(re.findall(r"^([a-z-]+) = \[", offered[1], re.MULTILINE))


def test_python_blocks_use_names_that_exist() -> None:
    blocks = _blocks(_page("README.md"), "python")
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "classifier" or hasattr(Classifier, node.attr), node.attr


def test_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    rows = set(map(int, re.findall(r"^\| (\d) \|", _page("README.md"), re.MULTILINE)))
    waiting, codes = [ResdeployError], {0, 2}
    while waiting:
        error = waiting.pop()
        codes.add(error.exit_code)
        waiting += error.__subclasses__()
    assert codes <= rows


@pytest.mark.parametrize("name", _PAGES)
def test_files_and_links_named_in_the_pages_exist(name: str) -> None:
    page = _page(name)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link]
    paths = re.findall(
        r"`((?:\.ci|benchmarks|calibration|deploy|docs|examples|export|tests|typings)/[\w./-]*)`",
        page,
    )
    missing = [path for path in links + paths if not (_ROOT / path).exists()]
    assert not missing


def test_the_changelog_knows_the_version_or_has_unreleased_changes() -> None:
    assert re.search(rf"^## \[(Unreleased|{re.escape(version('resdeploy'))})\]",
                     _page("CHANGELOG.md"), re.MULTILINE)  # fmt: skip
