"""Defaults from a file: found upwards, checked by name, weaker than what is typed."""

from pathlib import Path

import click
import pytest

from resdeploy.deploy.cli.shell.config import (
    OWN_FILE,
    Settings,
    default_map,
    options_of,
    read_settings,
)
from resdeploy.deploy.errors import InputError


@click.command()
@click.option("--max-drop", type=float)
@click.option("--no-repair", "repair", flag_value=False, default=True)
@click.option("--json", "as_json", is_flag=True)
def check(max_drop: float | None, repair: bool, as_json: bool) -> None:
    """Judge."""
    click.echo(f"{max_drop} {repair} {as_json}")


@click.command()
@click.option("--json", "as_json", is_flag=True)
@click.option("--port", type=int, default=1)
def serve(as_json: bool, port: int) -> None:
    """Serve."""


_COMMANDS: dict[str, click.Command] = {"check": check, "serve": serve}


def _settings(**content: object) -> Settings:
    return Settings(
        Path("resdeploy.toml"), {key.replace("_", "-"): v for key, v in content.items()}
    )


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    below = tmp_path / "project" / "src"
    below.mkdir(parents=True)
    (tmp_path / "resdeploy.toml").write_text('backend = "ort-cpu"\n')
    found = read_settings(below)
    assert found is not None and found.content == {"backend": "ort-cpu"}
    project = tmp_path / "project" / "pyproject.toml"
    project.write_text("[tool.other]\nx = 1\n")
    found = read_settings(below)
    assert found is not None and found.path == tmp_path / "resdeploy.toml"
    project.write_text("[tool.resdeploy]\n[tool.resdeploy.verify]\nmax-drop = 0.5\n")
    found = read_settings(below)
    assert found is not None and found.content == {"verify": {"max-drop": 0.5}}


def test_a_key_of_all_commands_and_a_table_of_one() -> None:
    found = default_map(_settings(json=True, check={"max-drop": 0.5, "no-repair": True}), _COMMANDS)
    assert found == {
        "check": {"as_json": True, "max_drop": 0.5, "repair": False},
        "serve": {"as_json": True},
    }
    assert default_map(_settings(json=False), _COMMANDS) == {"check": {}, "serve": {}}


@pytest.mark.parametrize(("content", "message"), [
    ({"prot": 1}, r"no option or command is called 'prot': did you mean 'port'\?"),
    ({"chek": {}}, r"no option or command is called 'chek': did you mean 'check'\?"),
    ({"check": {"max-drp": 1}}, r"of check is called 'max-drp': did you mean 'max-drop'\?"),
    ({"serve": {"max-drop": 1}}, r"of serve is called 'max-drop': resdeploy COMMAND --help"),
])  # fmt: skip
def test_an_unknown_key_is_named_with_the_nearest(content: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        default_map(Settings(Path("resdeploy.toml"), content), _COMMANDS)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "resdeploy.toml").write_text("backend = \n")
    with pytest.raises(InputError, match=r"resdeploy\.toml: cannot be read as TOML: "):
        read_settings(tmp_path)


def test_options_are_known_by_their_long_names() -> None:
    assert set(options_of(check)) == {"max-drop", "no-repair", "json"}


def test_a_file_nested_for_ever_is_one_line(tmp_path: Path) -> None:
    (tmp_path / OWN_FILE).write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError, match="cannot be read as TOML"):
        read_settings(tmp_path)


def test_a_working_directory_that_was_removed_has_no_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert read_settings() is None
