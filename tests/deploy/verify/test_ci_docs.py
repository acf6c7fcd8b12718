"""docs/ci.md and action.yml are true: their shell steps are run here as they are written."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.deploy import assert_accuracy

Weights = NDArray[np.float32]
WriteBundle = Callable[..., Path]

_ROOT = Path(__file__).resolve().parents[3]
_MAIN = "from resdeploy.deploy.cli import main; main()"
_BROKEN = np.array([-0.5, 0, 0], np.float32)


def _steps(text: str) -> list[str]:
    """The scripts after every `run:` (one line, or a block) of a YAML text, in order."""
    scripts = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"( *)(?:- )?run: (.*)", line)
        if match is None:
            continue
        if match[2] != "|":
            scripts.append(match[2])
            continue
        block = []
        for following in lines[number + 1 :]:
            if following.strip() and len(following) - len(following.lstrip()) <= len(match[1]):
                break
            block.append(following.strip())
        scripts.append("\n".join(block))
    return scripts


def _fenced(language: str) -> list[str]:
    text = (_ROOT / "docs" / "ci.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def workplace(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A user's repository with a bundle and pictures; returns a function that runs a script in it.

    `pip` is replaced by a command that only writes down what it was asked to install.
    """
    both = {"fp32": identity, "int8": identity}
    write_bundle(tmp_path / "flowers.bundle", both)
    write_bundle(tmp_path / "bad.bundle", both, bias={"int8": _BROKEN})
    shutil.copytree(colours, tmp_path / "photos" / "val")
    (tmp_path / "ci").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    note_down, python = 'echo "$@" >> installed.txt', f'exec {sys.executable} "$@"'
    scripts = {
        "python": f'case "$*" in *"pip install"*) {note_down};; *) {python};; esac',
        "resdeploy": f'exec {sys.executable} -c "{_MAIN}" "$@"',
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755 | stat.S_IXUSR)

    def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "GITHUB_ACTION_PATH": str(_ROOT),
        }
        return subprocess.run(
            # the shell GitHub documents for `shell: bash`
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
        )

    return run


def test_the_workflow_is_green_then_red_after_the_int8_graph_went_bad(
    tmp_path: Path, workplace: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    once, ratchet = _fenced("console")
    install, verify = _steps(_fenced("yaml")[0])
    assert workplace(once.removeprefix("$ ")).returncode == 0
    assert workplace(install).returncode == 0
    assert "resdeploy[runtime]" in (tmp_path / "installed.txt").read_text()
    green = workplace(verify)
    assert green.returncode == 0, green.stderr
    assert "resdeploy verify: pass" in (tmp_path / "summary.md").read_text()
    shutil.rmtree(tmp_path / "flowers.bundle")
    (tmp_path / "bad.bundle").rename(tmp_path / "flowers.bundle")
    red = workplace(verify)
    assert red.returncode == 3
    assert "::error title=resdeploy int8 max-drop::" in red.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert "resdeploy verify: fail" in summary and "000.png" in summary
    assert (tmp_path / "verify.xml").is_file() and (tmp_path / "verify.json").is_file()
    before = (tmp_path / "ci" / "baseline.json").read_bytes()
    assert workplace(ratchet.removeprefix("$ ")).returncode == 3
    assert (tmp_path / "ci" / "baseline.json").read_bytes() == before


def test_the_gitlab_script_runs(workplace: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert workplace(_fenced("console")[0].removeprefix("$ ")).returncode == 0
    block = _fenced("yaml")[2].partition("script:\n")[2].partition("  artifacts:")[0]
    script = "\n".join(line.strip().removeprefix("- ") for line in block.splitlines())
    done = workplace(script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("bundle", "code"), [("flowers.bundle", 0), ("bad.bundle", 3)])
def test_the_action_decides(
    tmp_path: Path,
    workplace: Callable[..., subprocess.CompletedProcess[str]],
    bundle: str,
    code: int,
) -> None:
    install, verify = _steps((_ROOT / "action.yml").read_text())
    assert workplace(install).returncode == 0
    assert f"{_ROOT}[runtime]" in (tmp_path / "installed.txt").read_text()
    names = re.findall(
        r"^        ([A-Z0-9_]+): \$\{\{ inputs\.", (_ROOT / "action.yml").read_text(), re.M
    )
    given = dict.fromkeys(names, "") | {
        "BUNDLE": bundle, "DATA": "photos/val", "MAX_DROP": "2", "STRICT": "true",
        "PRECISION": "fp32,int8", "JUNIT": "out.xml",
    }  # fmt: skip
    done = workplace(verify, **given)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "out.xml").is_file()


def test_the_helper_for_ones_own_tests(
    tmp_path: Path, write_bundle: WriteBundle, identity: Weights, colours: Path
) -> None:
    both = {"fp32": identity, "int8": identity}
    good = write_bundle(tmp_path / "good", both)
    assert assert_accuracy(good, data=colours, max_drop=2).verdict == "pass"
    bad = write_bundle(tmp_path / "bad", both, bias={"int8": _BROKEN})
    with pytest.raises(AssertionError, match=r"int8: top-1 drops by .* points .* allowed are 2"):
        assert_accuracy(bad, data=colours, max_drop=2)
