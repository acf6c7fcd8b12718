"""Options that several commands share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from resdeploy.deploy.defaults import SERVED_WAIT_MS
from resdeploy.deploy.specs import BACKENDS, PRECISIONS, SCORING_ENGINES, Precision, ScoringEngine

_Command = TypeVar("_Command", bound=Callable[..., Any])


def option_group(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """One decorator for several options, which `--help` shows in the order given."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class FiniteRange(click.FloatRange):
    """Numbers in a range; NaN and infinity, which no comparison refuses, are in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; a usage error for anything else."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class BundlePath(click.Path):
    """The path of a bundle, or its address hf://OWNER/NAME[@REVISION], which is fetched here.

    `changed`: the command changes the bundle, which a fetched one is not made for.
    """

    def __init__(self, *, changed: bool = False) -> None:
        super().__init__(path_type=Path)
        self._changed = changed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; the network is asked only when the command will run."""
        if ctx is not None and ctx.resilient_parsing:
            return super().convert(value, param, ctx)
        from resdeploy.deploy.bundle.hub import fetch, is_address

        if not is_address(value):
            return super().convert(value, param, ctx)
        if self._changed:
            self.fail(f"{value} is only read: hf download it to a folder and give that", param, ctx)
        return fetch(value)


# More than any machine has, fewer than bring one down.
THREADS_TYPE = click.IntRange(1, 1024)
BATCH_TYPE = click.IntRange(1, 4096)
SECONDS_TYPE = FiniteRange(0, 3600, min_open=True)
# what every random generator used here takes
SEED_TYPE = click.IntRange(0, 2**32 - 1)

precision_option = click.option(
    "--precision",
    type=click.Choice(("auto", *PRECISIONS)),
    help="auto: the fastest one here that passes the bundle's self check.  "
    "[default: fp32, or what a lone file holds]",
)


_BACKENDS = f"auto (the fastest here that gives the recorded answers), {', '.join(BACKENDS)}."

backend_option = click.option(
    "--backend",
    type=click.Choice(("auto", *BACKENDS)),
    metavar="NAME",
    default="auto",
    show_default=True,
    help=f"What runs the network: {_BACKENDS}",
)


@dataclass(frozen=True)
class Scoring:
    """What `--engine` and `--workers` say."""

    engine: ScoringEngine
    workers: int | None


def scoring_of(ctx: click.Context) -> Scoring:
    """Who is to work on the images.

    Raises:
        click.UsageError: workers without a cluster.
    """
    found = Scoring(ctx.meta["engine"], ctx.meta["workers"])
    if found.engine == "local" and found.workers is not None:
        raise click.UsageError("--workers needs --engine ray")
    return found


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep it for `scoring_of`; it is no argument of the command."""
    ctx.meta[str(parameter.name)] = value


# in the context of the command: see `scoring_of`
engine_option = option_group(
    click.option(
        "--engine",
        expose_value=False,
        callback=_keep,
        type=click.Choice(SCORING_ENGINES),
        default="local",
        show_default=True,
        help="ray spreads the images over a cluster: docs/scale.md.",
    ),
    click.option(
        "--workers",
        expose_value=False,
        callback=_keep,
        type=click.IntRange(min=1),
        help="Sessions that ray runs at once.  [default: one a core, or a GPU]",
    ),
)


max_wait_option = click.option(
    "--max-wait-ms",
    type=FiniteRange(min=0),
    default=SERVED_WAIT_MS,
    show_default=True,
    help="How long a request waits for others to share its inference.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


def precisions_of_list(texts: tuple[str, ...]) -> tuple[Precision, ...]:
    """The precisions in comma-separated texts, each once, in the order of `PRECISIONS`.

    Raises:
        click.BadParameter: a name that is no precision.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(name for name in PRECISIONS if name in names)


def _precisions(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[Precision, ...]:
    return precisions_of_list(texts)


precisions_option = click.option(
    "--precision",
    "precisions",
    multiple=True,
    callback=_precisions,
    metavar="LIST",
    help="fp32, fp16, int8; repeat or separate by commas.  [default: all in BUNDLE]",
)


backends_option = click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(("auto", *BACKENDS)),
    default=("auto",),
    show_default=True,
    metavar="NAME",
    help=f"What runs the network, may be repeated: {_BACKENDS}",
)
