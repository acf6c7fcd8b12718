"""The `resdeploy` command: a table of names, loaded when used, and one place for every error.

Each package keeps its own commands. They are named here as text, so that `deploy` imports nothing
from the packages above it, and `resdeploy --help` loads no library.
"""

import sys
from importlib import import_module

import click

from resdeploy.deploy.errors import ResdeployError

_COMMANDS = {
    "export": "resdeploy.export.commands:export",
    "predict": "resdeploy.deploy.commands:predict",
    "inspect": "resdeploy.deploy.commands:inspect",
    "doctor": "resdeploy.deploy.commands:doctor",
}

_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports


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
    try:
        status = cli.main(prog_name="resdeploy", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: nothing was left half-written", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # the reader (head, less) left: not our error, and stdout must not be flushed again
        sys.stdout = None
        sys.exit(0)
    except ResdeployError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        click.echo(
            f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())} "
            "(this is a fault of resdeploy: run again with resdeploy --debug and report it)",
            err=True,
        )
        sys.exit(1)
