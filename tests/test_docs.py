"""The documentation says what the commands do: checked against the commands themselves."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import click
import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from resdeploy.deploy import Classifier
from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.cli.shell.flags import without_flags
from resdeploy.deploy.errors import ResdeployError
from tests.builders import add_variant
from tests.conftest import tiny_graph

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md",
          *sorted(f"docs/{page.name}" for page in (_ROOT / "docs").glob("*.md")))  # fmt: skip
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
        yield from ((name, words) for words in _snippet_lines(_page(name)))
    for name in _NAMES:
        for line in (_command(name).epilog or "").splitlines():
            yield f"{name} --help", shlex.split(line.split(" > ")[0])


def _snippet_lines(page: str) -> Iterator[list[str]]:
    """The lines of resdeploy in other blocks: steps of a CI system, and commands without a `$`."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            jenkins = re.fullmatch(r" *sh '(.*)'", line)
            typed = jenkins[1] if jenkins else re.sub(r"^ *(- |run: )?", "", line)
            if (found := re.match(r"resdeploy ([a-z]+) ", typed)) and found[1] in _NAMES:
                words = shlex.split(typed, comments=True)
                yield words[: next((k for k, w in enumerate(words) if w in ">|&"), len(words))]


def _check_resdeploy_line(words: list[str]) -> None:
    """Parse the words after `resdeploy` as click would, without running anything."""
    if words[0].startswith("-"):
        assert words[0] in {opt for parameter in cli.params for opt in parameter.opts} | {"--help"}
        return
    command = _command(words[0])
    if "--help" not in words:
        context = click.Context(command, parent=_CONTEXT, info_name=words[0])
        # an unknown option raises; missing files are the reader's, so no value is looked at
        command.make_parser(context).parse_args(without_flags(words[1:])[0])


def test_there_are_commands_and_lines_to_check() -> None:
    assert {"export", "predict", "inspect", "doctor"} <= set(_NAMES)
    typed = [words[0] for _, words in _shell_lines()]
    assert typed.count("resdeploy") > len(_NAMES)


@pytest.mark.parametrize("name", _NAMES)
def test_every_command_explains_itself_with_two_examples(name: str) -> None:
    command = _command(name)
    assert command.help and command.epilog
    assert not [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    examples = command.epilog.splitlines()
    assert len(set(examples)) == 2 and all(f"resdeploy {name}" in line for line in examples)
    with CliRunner().isolation():
        shown = command.make_context(name, ["--help"], resilient_parsing=True).get_help()
    assert shown.startswith("Examples:") and not [x for x in shown.splitlines() if len(x) > 80]


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
    # the signatures of api-reference.md are no programs
    pages = [_page(name) for name in _PAGES if name != "docs/api-reference.md"]
    blocks = [block for page in pages for block in _blocks(page, "python")]
    assert len(blocks) > 3
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
    folder = Path(name).parent
    links = [str(folder / link) for link in re.findall(r"\]\(([^)#]+)\)", page)
             if "://" not in link]  # fmt: skip
    paths = re.findall(
        r"`((?:\.ci|benchmarks|calibration|deploy|docs|examples|export|src|tests)/[\w./-]*)`",
        page,
    )
    missing = [path for path in links + paths if not (_ROOT / path).exists()]
    assert not missing


def test_every_assumption_stands_in_the_table_of_the_page_on_checkpoints() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", _page("docs/checkpoints.md"), re.MULTILINE))
    called = {"choice", "Assumption"}
    keys = {
        str(node.args[0].value)
        for path in (_ROOT / "export" / "architectures").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
        if (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in called
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    assert keys == rows and len(keys) > 15


def test_the_map_of_the_code_shows_every_folder() -> None:
    page = _page("ARCHITECTURE.md")
    packages = ("deploy", "export", "calibration")
    files = [file for name in packages for file in (_ROOT / name).rglob("*.py")]
    folders = {file.parent.relative_to(_ROOT).as_posix() for file in files}
    assert not {folder for folder in folders if f"`{folder}/`" not in page}


def test_the_changelog_knows_the_version_or_has_unreleased_changes() -> None:
    assert re.search(rf"^## \[(Unreleased|{re.escape(version('resdeploy'))})\]",
                     _page("CHANGELOG.md"), re.MULTILINE)  # fmt: skip


def test_the_readme_is_short() -> None:
    assert len(_page("README.md").splitlines()) <= 150


def _reference_of(script: str) -> str:
    """What a script in examples/ writes as its page."""
    spec = spec_from_file_location(script, _ROOT / "examples" / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.reference())


def test_the_page_of_commands_is_what_they_print() -> None:
    # spaces apart, which change with click; a command that was asked alone has no -h
    written, printed = _page("docs/commands.md"), _reference_of("command_reference")
    assert written.replace("-h, ", "").split() == printed.replace("-h, ", "").split()


def test_the_page_of_python_names_is_what_their_docstrings_say() -> None:
    assert _page("docs/api-reference.md") == _reference_of("api_reference")


@pytest.mark.slow
def test_the_site_is_built_without_a_remark(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "WARNING" not in done.stderr and (tmp_path / "site" / "commands" / "index.html").is_file()
    )


def test_every_page_stands_in_the_sites_menu_and_in_llms_txt() -> None:
    pages = {page.name for page in (_ROOT / "docs").glob("*.md")}
    assert set(re.findall(r"([\w-]+\.md)$", _page("mkdocs.yml"), re.MULTILINE)) == pages
    # index.md is what llms.txt is itself
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", _page("docs/llms.txt"))) == pages - {"index.md"}


def test_the_schema_holds_for_what_an_export_writes_and_fails_for_what_is_wrong(
    flower_bundle: Path,
) -> None:
    schema = json.loads(_page("docs/bundle.schema.json"))
    manifest = json.loads((flower_bundle / "manifest.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)
    assert set(manifest) - {"sha256"} <= set(schema["properties"])
    wrong: list[dict[str, object]] = [
        {"labels": "daisy"}, {"format_version": 2}, {"variants": {"int4": {}}},
    ]  # fmt: skip
    for change in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(manifest | change, schema)


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for package in ("deploy", "export")
        for path in (_ROOT / package).rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # texts that go over several lines
    messages = re.findall(r"^\| `([^`]+)` \|", _page("docs/troubleshooting.md"), re.MULTILINE)
    assert len(messages) > 12
    missing = []
    for message in messages:
        parts = re.split(r"…|\b[NM]\b|'x'|sm_\d+|\d+%", message)
        if max(parts, key=len).strip(" ;:,") not in joined:
            missing.append(message)
    assert missing == []


def test_python_of_the_readme_and_the_page_on_python_runs(
    flower_bundle: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shutil.copytree(flower_bundle, tmp_path / "flowers.bundle")
    for variant in ("fp16", "int8", "int8-cpu"):  # other precisions in name only
        add_variant(bundle, variant, tiny_graph())
    (tmp_path / "flowers_mobilenet_v2.bundle").symlink_to(bundle)
    for name, image in zip(("tulip", "a", "b"), image_folder.iterdir(), strict=False):
        shutil.copy(image, tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    names = {"frame": np.zeros((8, 9, 3), np.uint8), "batch": np.zeros((2, 3, 32, 32), np.float32)}
    for page in ("README.md", "docs/api.md"):
        (block,) = _blocks(_page(page), "python")
        exec(compile(block, page, "exec"), known := dict[str, Any](names))
        assert "load" in known
