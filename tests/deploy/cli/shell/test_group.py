"""The table of commands, flags that stand anywhere, suggestions, a project's own defaults."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.cli.shell.group import COMMANDS, did_you_mean


def test_help_fits_80_columns_and_cuts_no_sentence() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    assert max(map(len, shown.splitlines())) <= 80 and "..." not in shown.partition("Options")[2]
    for name, (_, sentence) in COMMANDS.items():
        assert any(line.split() == [name, *sentence.split()] for line in shown.splitlines()), name


@pytest.mark.parametrize(("word", "expected"), [
    ("exprt", ": did you mean 'export'?"), ("zzz", ": resdeploy --help lists them"),
])  # fmt: skip
def test_a_mistyped_command_gets_a_suggestion(word: str, expected: str) -> None:
    assert did_you_mean(word, list(COMMANDS)) == expected
    done = CliRunner().invoke(cli, [word])
    assert done.exit_code == 2 and f"no such command {word!r}{expected}" in done.output


def test_a_mistyped_option_gets_one_too() -> None:
    done = CliRunner().invoke(cli, ["quantize", "x", "--clib", "y"])
    assert done.exit_code == 2 and "--calib" in done.output


@pytest.mark.parametrize("words", [("-q", "config"), ("config", "-q"), ("config", "--quiet")])
def test_quiet_stands_anywhere_and_leaves_the_result_alone(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["config"]).stderr.startswith("no resdeploy.toml")
    assert CliRunner().invoke(cli, words).stderr == ""


def test_the_projects_defaults_hold_until_something_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flower_bundle: Path, image_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resdeploy.toml").write_text("[predict]\ntop = 2\njson = true\n")
    image = str(image_folder / "cut_03.jpg")
    words = ["predict", str(flower_bundle), image]
    for more, expected in (([], 2), (["--top", "3"], 3)):
        (row,) = json.loads(CliRunner().invoke(cli, [*words, *more]).stdout)
        assert len(row["predictions"]) == expected
    (tmp_path / "resdeploy.toml").write_text("[predict]\ntpo = 2\n")
    error = CliRunner().invoke(cli, words).exception
    assert "of predict is called 'tpo': did you mean 'top'?" in str(error)
