"""`config` shows defaults and their source; the completion script completes in a real shell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli.main import cli


def test_config_shows_what_a_file_changes_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "resdeploy.toml"
    file.write_text('backend = "ort-cpu"\n[verify]\nmax-drop = 0.5\n')
    found = json.loads(CliRunner().invoke(cli, ["config", "--json"]).stdout)
    assert found["file"] == str(file)
    rows = {(row["command"], row["option"]): row["value"] for row in found["options"]}
    assert rows[("verify", "max-drop")] == 0.5 and rows[("predict", "backend")] == "ort-cpu"
    assert {row["from"] for row in found["options"]} == {str(file)}
    one = json.loads(CliRunner().invoke(cli, ["config", "quantize", "--json"]).stdout)
    assert {"option": "images", "value": 512, "command": "quantize", "from": "built in"} in (
        one["options"]
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0 and "_RESDEPLOY_COMPLETE" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    command = tmp_path / "resdeploy"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m resdeploy "$@"\n')
    command.chmod(0o755)
    script = CliRunner().invoke(cli, ["completion", "bash"]).stdout
    for words, position, expected in (
        ("resdeploy qu", 1, "quantize"), ("resdeploy quantize --cal", 2, "--calib"),
    ):  # fmt: skip
        program = (
            f"{script}\nCOMP_WORDS=({words}); COMP_CWORD={position}\n"
            '_resdeploy_completion resdeploy; echo "${COMPREPLY[@]}"'
        )
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True,
                              env=environment)  # fmt: skip
        assert expected in done.stdout.split(), done.stderr
