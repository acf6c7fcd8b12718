"""`resdeploy config` and `resdeploy completion`."""

from typing import Any

import click

from resdeploy.deploy.cli.options import json_option
from resdeploy.deploy.cli.output import note, print_json, print_table, write
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.config import OWN_FILE, PROJECT_FILE, options_of, read_settings


@click.command(cls=Command, epilog="resdeploy config\nresdeploy config verify --json")
@click.argument("name", required=False, metavar="[COMMAND]")
@json_option
@click.pass_context
def config(ctx: click.Context, /, name: str | None, as_json: bool) -> None:
    """Show the defaults in force of every command, or of COMMAND, and where each comes from.

    A project keeps its own in resdeploy.toml, or under [tool.resdeploy] in pyproject.toml: an
    option of any command by its name, or a table of one command. What is typed comes first.
    """
    root = ctx.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    names = group.list_commands(root)
    if name is not None and name not in names:
        raise click.UsageError(f"no such command {name!r}")
    settings = read_settings()
    own = root.default_map or {}
    rows: list[dict[str, Any]] = []
    for each in [name] if name else names:
        command = group.get_command(root, each)
        assert command is not None
        for key, option in options_of(command).items():
            given = own.get(each, {})
            changed = option.name in given
            value = given[option.name] if changed else _plain(option)
            if name is not None or changed:
                source = str(settings.path) if changed and settings else "built in"
                rows.append({"command": each, "option": key, "value": value, "from": source})
    if as_json:
        print_json({"file": None if settings is None else str(settings.path), "options": rows})
        return
    if rows:
        table = [(r["command"], r["option"], _text(r["value"]), r["from"]) for r in rows]
        print_table(("command", "option", "value", "from"), table)
    if settings is None:
        note(f"no {OWN_FILE} and no [tool.resdeploy] in a {PROJECT_FILE}, here or above")


def _plain(option: click.Option) -> Any:
    """The built-in default, as JSON has it; None for none."""
    default = option.default
    return default if isinstance(default, str | int | float | bool | list) else None


def _text(value: Any) -> str:
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list | tuple) \
        else str(value)  # fmt: skip


_WHERE = {
    "bash": 'eval "$(resdeploy completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$(resdeploy completion zsh)"  in ~/.zshrc',
    "fish": "resdeploy completion fish > ~/.config/fish/completions/resdeploy.fish",
}


@click.command(
    cls=Command,
    epilog='eval "$(resdeploy completion bash)"\n'
    "resdeploy completion fish > ~/.config/fish/completions/resdeploy.fish",
)
@click.argument("shell", type=click.Choice(tuple(_WHERE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands and options with the Tab key."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    complete = found(ctx.find_root().command, {}, "resdeploy", "_RESDEPLOY_COMPLETE")
    # not `source()`, which asks bash for its version: the script may be for another machine
    write(complete.source_template % complete.source_vars())
    note(f"to keep it: {_WHERE[shell]}")
