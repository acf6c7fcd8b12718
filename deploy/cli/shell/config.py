"""Defaults of a project: `resdeploy.toml`, or `[tool.resdeploy]` in `pyproject.toml`.

    backend = "ort-cpu"          # for every command that has the option

    [verify]                     # for one command
    max-drop = 0.5
    data = "photos/val"

The nearest file counts, from the working directory upwards. What is typed comes before it. Paths
are relative to the working directory, as on the command line.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.reading import read_text

OWN_FILE = "resdeploy.toml"
PROJECT_FILE = "pyproject.toml"
_TABLE = "resdeploy"

Commands = Mapping[str, click.Command]


@dataclass(frozen=True)
class Settings:
    """A file of defaults and its content, options by name or, for one command, in a table."""

    path: Path
    content: Mapping[str, Any]


def read_settings(start: Path | None = None) -> Settings | None:
    """The nearest file of defaults from `start` (the working directory) upwards, if there is one.

    Raises:
        InputError: it cannot be read.
    """
    try:
        folder = (start or Path.cwd()).absolute()
    except FileNotFoundError:  # the working directory was removed
        return None
    for place in (folder, *folder.parents):
        if (place / OWN_FILE).is_file():
            return Settings(place / OWN_FILE, _read(place / OWN_FILE))
        if (place / PROJECT_FILE).is_file():
            file = place / PROJECT_FILE
            if "[tool.resdeploy" not in file.read_text(encoding="utf-8", errors="replace"):
                continue  # most projects: no parser needed
            content = _read(file).get("tool", {}).get(_TABLE)
            if content is not None:
                return Settings(file, content)
    return None


def default_map(settings: Settings, commands: Commands) -> dict[str, dict[str, Any]]:
    """What click takes as defaults: command -> parameter -> value.

    Raises:
        InputError: a key that no command has, or that a command does not have; says the nearest.
    """
    options = {name: options_of(command) for name, command in commands.items()}
    everywhere = {key for known in options.values() for key in known}
    found: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for key, value in settings.content.items():
        if isinstance(value, dict):
            continue
        if key not in everywhere:
            raise _unknown(settings.path, key, [*everywhere, *commands], "")
        for name, known in options.items():
            if key in known:
                found[name] |= _value(known[key], value)
    for name, table in settings.content.items():
        if not isinstance(table, dict):
            continue
        if name not in commands:
            raise _unknown(settings.path, name, list(commands), "")
        for key, value in table.items():
            if key not in options[name]:
                raise _unknown(settings.path, key, list(options[name]), f" of {name}")
            found[name] |= _value(options[name][key], value)
    return found


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by the names that a file uses: `--max-drop` is max-drop."""
    return {
        text.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option)
        for text in option.opts
        if text.startswith("--") and text != "--help"
    }


def _value(option: click.Option, value: Any) -> dict[str, Any]:
    """The parameter's default; a flag is what it stands for when it is true, else left alone."""
    assert option.name is not None
    if not option.is_flag:
        return {option.name: value}
    # a plain flag says no value of its own, --no-something does
    own = option.flag_value if isinstance(option.flag_value, bool | str) else True
    return {option.name: own} if value else {}


def _unknown(path: Path, key: str, known: list[str], of: str) -> InputError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    advice = f": did you mean {near[0]!r}?" if near else ": resdeploy COMMAND --help lists them"
    return InputError(f"{path}: no option or command{of} is called {key!r}{advice}")


def _read(path: Path) -> dict[str, Any]:
    try:
        parser = import_module("tomllib")
    except ModuleNotFoundError:  # Python 3.10
        try:
            parser = import_module("tomli")
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path}: Python 3.10 reads it with tomli only: pip install tomli, or use 3.11"
            ) from error
    try:
        content: dict[str, Any] = parser.loads(read_text(path))
    except RecursionError as error:
        raise InputError(f"{path}: cannot be read as TOML: nested too deeply") from error
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise InputError(f"{path}: cannot be read as TOML: {error}") from error
    return content
