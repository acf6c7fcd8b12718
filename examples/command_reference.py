"""Writes docs/commands.md from the commands themselves: `python examples/command_reference.py`."""

from pathlib import Path

import click

from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.cli.shell.group import COMMANDS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
_WIDTH = 80


def reference() -> str:
    """The page: what each command's --help prints on a terminal of 80 columns."""
    parts = [
        "# Commands\n\nWhat `resdeploy --help` and each command's `--help` print. Written by "
        "`examples/command_reference.py`;\na test sees that it is up to date.\n",
        _section("resdeploy", click.Context(cli, info_name="resdeploy", terminal_width=_WIDTH)),
    ]
    for name in COMMANDS:
        parent = click.Context(cli, info_name="resdeploy", terminal_width=_WIDTH)
        command = cli.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH,
                                help_option_names=["-h", "--help"])  # fmt: skip
        parts.append(_section(f"resdeploy {name}", context))
    return "\n".join(parts)


def _section(title: str, context: click.Context) -> str:
    return f"## {title}\n\n```text\n{context.get_help()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
