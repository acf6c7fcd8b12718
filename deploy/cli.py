"""The `resdeploy` command: a table of names, loaded when used, and one place for every error.

Each package keeps its own commands. They are named here as text, so that `deploy` imports nothing
from the packages above it, and `resdeploy --help` loads no library.
"""

import os
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from resdeploy.deploy.errors import ResdeployError

_COMMANDS = {
    "export": "resdeploy.export.commands:export",
    "quantize": "resdeploy.calibration.commands:quantize",
    "build": "resdeploy.deploy.build_commands:build",
    "predict": "resdeploy.deploy.commands:predict",
    "verify": "resdeploy.deploy.verify_commands:verify",
    "bench": "resdeploy.deploy.bench_commands:bench",
    "inspect": "resdeploy.deploy.commands:inspect",
    "doctor": "resdeploy.deploy.commands:doctor",
}

# 128 + the signal's number, what a shell reports
_INTERRUPTED = 130
_READER_LEFT = 141


class _LazyGroup(click.Group):
    """Click's documented pattern for subcommands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader (head, less) left. Neither a success, which an accuracy gate would be
            # taken to have passed, nor an error to talk about; what is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_READER_LEFT)


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: resdeploy export resnext50.pth && resdeploy predict resnext50.bundle *.jpg",
)
@click.version_option(package_name="resdeploy")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """From a trained image classifier's .pth file to a proven edge deployment.

    Exit codes: 0 done, 1 an error you can fix, 2 wrong usage, 3 the accuracy gate failed,
    4 the backend or hardware asked for is not here.
    """


def main() -> None:
    """Run the command line; the only place that turns errors into exit codes."""
    if not sys.warnoptions and "--debug" not in sys.argv:
        warnings.simplefilter("ignore")  # libraries' remarks to programmers, not to users
    try:
        status = cli.main(prog_name="resdeploy", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: nothing was left half-written", err=True)
        sys.exit(_INTERRUPTED)
    except ResdeployError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            click.echo(f"error: {error.filename}: {error.strerror}", err=True)
            sys.exit(1)
        click.echo(
            f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())} "
            "(this is a fault of resdeploy: run again with resdeploy --debug and report it)",
            err=True,
        )
        sys.exit(1)
