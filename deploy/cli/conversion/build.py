"""The command `resdeploy build`: validates, calls `build_engine`, prints."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from resdeploy.deploy.cli.options import BundlePath, json_option
from resdeploy.deploy.cli.output import note, print_json, print_table, progress_bar
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.cli.shell.next_steps import as_typed, finish
from resdeploy.deploy.defaults import ENGINE_BATCH, ENGINE_FLAVOR, ENGINE_PRECISION
from resdeploy.deploy.engine.flavor import FLAVORS, Flavor
from resdeploy.deploy.specs import PRECISIONS, BatchRange, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.engine.store import Engine


def _batch_range(ctx: click.Context, parameter: click.Parameter, text: str) -> BatchRange:
    return BatchRange.parse(text)


def _architectures(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(","))


@click.command(
    cls=Command,
    epilog="resdeploy build flowers.bundle --precision int8 --batch 1:8:16\n"
    "resdeploy build flowers.bundle --flavor tensorrt-rtx --compute-capability 8.6",
)
@click.argument("bundle", type=BundlePath())
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=ENGINE_PRECISION,
    show_default=True,
    help="The graph to build.",
)
@click.option(
    "--flavor",
    type=click.Choice(FLAVORS),
    default=ENGINE_FLAVOR,
    show_default=True,
    help="tensorrt: servers and Jetsons; tensorrt-rtx: desktop GPUs.",
)
@click.option(
    "--compute-capability",
    "architectures",
    multiple=True,
    callback=_architectures,
    metavar="X.Y",
    help="GPU to build for, e.g. 8.6 or 8.6,12.0 (tensorrt-rtx only).  [default: the GPU here]",
)
@click.option(
    "--batch",
    default=str(ENGINE_BATCH),
    show_default=True,
    callback=_batch_range,
    metavar="MIN:OPT:MAX",
    help="Smallest, usual and largest batch, or one number for all three.",
)
@click.option(
    "--workspace-mib",
    type=click.IntRange(min=1),
    help="Scratch memory of the builder.  [default: a share of what is free]",
)
@click.option(
    "--timing-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of kernel timings to reuse.  [default: one beside the engines]",
)
@click.option(
    "--strongly-typed", is_flag=True, help="TensorRT 10: take every layer's type from the graph."
)
@click.option(
    "--version-compatible", is_flag=True, help="Make an engine that later versions run too."
)
@click.option(
    "--hardware-compatible", is_flag=True, help="Make an engine for every GPU from Ampere on."
)
@click.option("--dla-core", type=click.IntRange(min=0), help="Build for a Jetson's DLA.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="0 builds fastest.")
@click.option("--rebuild", is_flag=True, help="Build even if the engine is up to date.")
@json_option
def build(
    bundle: Path,
    precision: Precision,
    flavor: Flavor,
    architectures: tuple[str, ...],
    batch: BatchRange,
    workspace_mib: int | None,
    timing_cache: Path | None,
    strongly_typed: bool,
    version_compatible: bool,
    hardware_compatible: bool,
    dla_core: int | None,
    optimization_level: int | None,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Build BUNDLE's TensorRT engine, on the machine that will run it.

    The engine goes into the bundle's engines/ folder. TensorRT-RTX also builds for GPUs that are
    not here; see --compute-capability.
    """
    from resdeploy.deploy.engine.build import build_engine
    from resdeploy.deploy.engine.request import BuildOptions

    cache = str(timing_cache) if timing_cache else None
    options = BuildOptions(
        batch=batch, compute_capabilities=architectures, workspace_mib=workspace_mib,
        timing_cache=cache, strongly_typed=strongly_typed, version_compatible=version_compatible,
        hardware_compatible=hardware_compatible, dla_core=dla_core,
        optimization_level=optimization_level,
    )  # fmt: skip
    with progress_bar() as progress:
        engine = build_engine(
            bundle, precision=precision, flavor=flavor, options=options, rebuild=rebuild,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(engine.to_json())
    else:
        _print(bundle, engine)


def _print(bundle: Path, engine: "Engine") -> None:
    _print_engine(engine)
    sidecar = engine.sidecar
    run = f"{as_typed(bundle)} --precision {sidecar.precision} --backend {sidecar.machine.flavor}"
    finish(
        "found the engine" if engine.reused else "built the engine",
        f"resdeploy verify {run}",
        f"resdeploy bench {run}",
    )


def _print_engine(engine: "Engine") -> None:
    sidecar = engine.sidecar
    layers, convolutions = sidecar.layers, sidecar.convolutions
    library = f"{sidecar.machine.flavor} {sidecar.machine.version}"
    rows = [
        ("engine", str(engine.path)),
        (
            "built with",
            f"{library}, {sidecar.typing}ly typed",
        ),
        ("for", ", ".join(sidecar.compute_capabilities)),
        ("batch", str(sidecar.options.batch)),
        ("size", f"{sidecar.plan_bytes / 1e6:.1f} MB"),
        ("build", f"{sidecar.build_seconds:.1f} s, {sidecar.peak_memory_mib} MiB of memory"),
    ]
    for name, counts in (("layers", layers), ("convolutions", convolutions)):
        if counts is not None:
            types = f"{counts.int8} int8, {counts.half} half, {counts.float} float"
            rows.append((name, f"{counts.total}: {types}"))
    print_table((f"{sidecar.precision} engine", ""), rows)
    if engine.reused:
        note("up to date, not built again (--rebuild builds it anyway)")
