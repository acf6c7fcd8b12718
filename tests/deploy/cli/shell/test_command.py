"""A command's help: examples, usage, text, options in groups."""

import click
from click.testing import CliRunner

from resdeploy.deploy.cli.shell.command import Command


@click.command(cls=Command, epilog="resdeploy check a.bundle\nresdeploy check b.bundle --data d")
@click.argument("checkpoint")
@click.option("--data", help="Images.")
@click.option("--odd", help="Something else.")
def check(checkpoint: str, data: str | None, odd: str | None) -> None:
    """Judge."""


def test_examples_come_first_and_options_stand_in_groups() -> None:
    lines = CliRunner().invoke(check, ["--help"]).output.splitlines()
    assert lines[:3] == [
        "Examples:", "  resdeploy check a.bundle", "  resdeploy check b.bundle --data d",
    ]  # fmt: skip
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Examples:", "Options:", "Images:"]
    assert lines[lines.index("Images:") + 1].split() == ["--data", "TEXT", "Images."]
