"""What is released says one thing everywhere: versions, ranges, workflows, recipes, licences."""

import re
import shutil
import sys
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

_ROOT = Path(__file__).resolve().parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_EXTRAS = _PROJECT["optional-dependencies"]


def _script(path: str) -> ModuleType:
    file = _ROOT / path
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _workflow(name: str) -> dict[str, Any]:
    found = yaml.safe_load((_ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _commands(workflow: dict[str, Any]) -> list[str]:
    jobs = workflow["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_every_place_names_the_version_of_the_project() -> None:
    release = _script("packaging/check_release.py")
    assert release.differences(_PROJECT["version"]) == []
    assert len(release.differences("9.9.9")) == 4
    dockerfile = (_ROOT / "packaging/jetson-containers/Dockerfile").read_text(encoding="utf-8")
    assert f"RESDEPLOY_VERSION={_PROJECT['version']}\n" in dockerfile


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path: Path) -> None:
    release = _script("packaging/check_release.py")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Log\n\n## [Unreleased]\n\n## [2.0.0] - 2026-02-01\n\n### Added\n\n- b\n\n"
        "## [1.0.0] - 2026-01-01\n\n- a\n"
    )
    assert release.notes("2.0.0", tmp_path) == "### Added\n\n- b\n"
    assert release.notes("1.0.0", tmp_path) == "- a\n" and release.notes("3.0.0", tmp_path) == ""
    assert len(release.notes(_PROJECT["version"])) > 1000


def test_ci_runs_both_ends_of_the_range_of_torch() -> None:
    (torch,) = (Requirement(x) for x in _EXTRAS["export"] if x.startswith("torch>"))
    (vision,) = (Requirement(x) for x in _EXTRAS["export"] if x.startswith("torchvision"))
    oldest, newest = _workflow("test.yml")["jobs"]["torch"]["strategy"]["matrix"]["include"]
    for requirement, name in ((torch, "torch"), (vision, "torchvision")):
        lowest = next(s.version for s in requirement.specifier if s.operator == ">=")
        assert oldest[name] == f"{name}=={lowest}"
        assert not Requirement(newest[name]).specifier
    page = (_ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert f"torch {next(s.version for s in torch.specifier if s.operator == '>=')}" in page


@pytest.mark.parametrize("name", ["test.yml", "release.yml"])
def test_workflows_use_targets_extras_and_files_that_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = "\n".join(_commands(_workflow(name)))
    assert set(re.findall(r"\bmake ([\w-]+)", commands)) <= targets
    named = {e for found in re.findall(r"\[([a-z,]+)\]", commands) for e in found.split(",")}
    assert named <= set(_EXTRAS)
    for file in re.findall(r"\b(?:tests|packaging|examples)/[\w./-]+", commands):
        assert (_ROOT / file).exists(), file


def test_publishing_keeps_no_token_and_only_what_was_checked() -> None:
    jobs = _workflow("release.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build" and "secrets." not in str(jobs)
    commands = "\n".join(_commands({"jobs": {"build": jobs["build"]}}))
    for wanted in ("twine check --strict", "pip-audit", "cyclonedx-py", "SOURCE_DATE_EPOCH"):
        assert wanted in commands


def test_recipes_need_what_the_wheel_needs() -> None:
    text = (_ROOT / "packaging/conda-forge/recipe.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    run = {word.partition(" ")[0]: word.partition(" ")[2] for word in recipe["requirements"]["run"]}
    for requirement in map(Requirement, _PROJECT["dependencies"]):
        assert run.pop(requirement.name) == str(requirement.specifier)
    assert set(run) == {"python"} and f'python_min: "{_PROJECT["requires-python"][2:]}"' in text
    header = (_ROOT / "packaging/jetson-containers/Dockerfile").read_text().split("#---")[1]
    facts = yaml.safe_load("\n".join(line.removeprefix("# ") for line in header.splitlines()))
    assert facts["name"] == "resdeploy" and "tensorrt" in facts["depends"]
    assert (_ROOT / "packaging/jetson-containers" / facts["test"]).is_file()


def test_every_requirement_stands_on_the_page_of_licences() -> None:
    page = (_ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w.-]+) \|[^|]*\| ([^|]+) \|", page, re.MULTILINE))
    wanted = {Requirement(text).name.lower() for text in _PROJECT["dependencies"]}
    for extra, texts in _EXTRAS.items():
        if extra not in ("dev", "docs", "all"):
            wanted |= {Requirement(text).name.lower() for text in texts}
    assert wanted - {"resdeploy"} <= {name.lower() for name in rows}
    assert not [name for name, licence in rows.items() if not licence.strip()]


def test_a_licence_is_read_from_whatever_the_metadata_has() -> None:
    licences = _script("examples/dependency_licences.py")
    assert licences.licence_of(distribution("click").metadata) == "BSD-3-Clause"
    assert "BSD" in licences.licence_of(distribution("numpy").metadata)
    assert "Apache" in licences.licence_of(distribution("huggingface_hub").metadata)


def test_the_hook_for_other_repositories_runs_a_command_that_exists() -> None:
    (hook,) = yaml.safe_load((_ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    program, command = hook["entry"].split()
    from resdeploy.deploy.cli.shell.group import COMMANDS

    assert program == "resdeploy" and command in COMMANDS and hook["language"] == "python"
    assert shutil.which("git") and re.compile(hook["files"]).search("models/a.bundle/fp32.onnx")
