"""The group of commands: a table of names, loaded when used; flags that may stand anywhere.

Commands are named as text with one line each, so that `--help` loads no library and no command.
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from resdeploy.deploy.cli.shell.config import default_map, read_settings
from resdeploy.deploy.cli.shell.flags import Said, without_flags
from resdeploy.deploy.errors import EXIT_READER_LEFT
from resdeploy.deploy.system.streams import drop_output

_CLI = "resdeploy.deploy.cli"

# name -> (module:command, what it does, in one line of an 80-column terminal)
COMMANDS = {
    "export": ("conversion.export:export", "checkpoint -> bundle, proven against PyTorch"),
    "adopt": ("conversion.adopt:adopt", "another tool's ONNX classifier -> bundle"),
    "quantize": ("conversion.quantize:quantize", "add INT8 graphs that keep the answers"),
    "build": ("conversion.build:build", "bundle -> TensorRT engine, on the device"),
    "predict": ("predict:predict", "classes and probabilities of images"),
    "serve": ("serve:serve", "answer over HTTP and gRPC"),
    "push": ("push:push", "put a bundle and its model card on the Hub"),
    "triton": ("triton:triton", "write a model repository for NVIDIA Triton"),
    "verify": ("verify:verify", "does it still give the right answers?"),
    "history": ("history:history", "runs that verify recorded, one below the other"),
    "bench": ("bench:bench", "latency, throughput and memory on this machine"),
    "inspect": ("inspection.inspect:inspect", "what a checkpoint, bundle, engine or graph is"),
    "doctor": ("inspection.inspect:doctor", "what works here, and how to get what does not"),
    "config": ("shell.commands:config", "defaults in force, and where they come from"),
    "completion": ("shell.commands:completion", "completion of commands for your shell"),
}
_SECTIONS = {
    "Make": ("export", "adopt", "quantize", "build"),
    "Use": ("predict", "serve", "push", "triton"),
    "Check": ("verify", "history", "bench"),
    "Look": ("inspect", "doctor", "config", "completion"),
}
# what -v means to a command, where it means anything
_VERBOSE = {"quantize": "--verbose", "verify": "--wide"}


class CommandGroup(click.Group):
    """Click's documented pattern for subcommands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command that is asked for."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"{_CLI}.{module}"), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the flags that may stand anywhere off the line."""
        words, flags = without_flags(args)
        ctx.obj = Said(flags)
        if "verbose" in flags and words and words[0] in _VERBOSE:
            words.insert(1, _VERBOSE[words[0]])
        return super().parse_args(ctx, words)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and the project's own defaults for it."""
        name = args[0] if args else ""
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no such command {name!r}{did_you_mean(name, list(COMMANDS))}")
        if (settings := read_settings()) is not None:
            commands = {each: self.get_command(ctx, each) for each in COMMANDS}
            ctx.default_map = default_map(
                settings, {each: found for each, found in commands.items() if found is not None}
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader of its output that has left ends it quietly."""
        from resdeploy.deploy.cli.shell.logs import harmless_logs  # --help logs nothing

        try:
            with harmless_logs():
                return super().invoke(ctx)
        except BrokenPipeError:
            # The reader (head, less) left. Neither a success, which an accuracy gate would be
            # taken to have passed, nor an error to talk about; what is still buffered goes nowhere.
            drop_output(sys.stdout)
            ctx.exit(EXIT_READER_LEFT)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table in sections, one line each."""
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(10), COMMANDS[name][1]) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two examples, as they are typed."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.epilog.splitlines()))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """What to add to a message about an unknown word: the nearest known one, or where they are."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else ": resdeploy --help lists them"
