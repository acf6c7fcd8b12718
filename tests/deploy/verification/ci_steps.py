"""Runs the shell steps of a workflow as a CI job does."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Shell = Callable[..., subprocess.CompletedProcess[str]]

_ROOT = Path(__file__).resolve().parents[3]
_MAIN = "from resdeploy.deploy.cli.main import main; main()"


def steps(text: str) -> list[str]:
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


def shell_in(folder: Path) -> Shell:
    """A function that runs a script in `folder`, with variables.

    `pip` is replaced by a command that only writes down what it was asked to install.
    """
    programs = folder / "programs"
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
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GITHUB_ACTION_PATH": str(_ROOT),
            "GITHUB_OUTPUT": str(folder / "output.txt"),
        }
        return subprocess.run(
            # the shell GitHub documents for `shell: bash`
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=environment | variables,
            capture_output=True,
            text=True,
        )

    return run


def write_gh(folder: Path, *, answer: str, writes: bool) -> None:
    """A `gh` that notes down what it is asked, and may refuse to write."""
    refuse = "" if writes else 'case "$*" in *body=@*) exit 1;; esac'
    program = folder / "programs" / "gh"
    program.write_text(f'#!/bin/sh\necho "$@" >> asked.txt\n{refuse}\necho "{answer}"\n')
    program.chmod(0o755)
