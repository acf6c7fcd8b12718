"""The command `resdeploy build`: validates, calls `build_engine`, prints."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from resdeploy.deploy.commands import json_option
from resdeploy.deploy.flavor import FLAVORS, Flavor
from resdeploy.deploy.output import note, print_json, print_table, progress_bar
from resdeploy.deploy.specs import PRECISIONS, BatchRange, Precision

if TYPE_CHECKING:
    from resdeploy.deploy.engine_store import Engine


def _batch_range(ctx: click.Context, parameter: click.Parameter, text: str) -> BatchRange:
    return BatchRange.parse(text)


def _architectures(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(","))


@click.command(epilog="Example: resdeploy build flowers.bundle --precision int8 --batch 1:8:16")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp16", show_default=True)
@click.option("--flavor", type=click.Choice(FLAVORS), default="tensorrt", show_default=True)
@click.option(
    "--compute-capability",
    "architectures",
    multiple=True,
    callback=_architectures,
    metavar="X.Y",
    help="GPU to build for, e.g. 8.6 or 8.6,12.0 (tensorrt-rtx; default: the GPU at hand).",
)
@click.option(
    "--batch",
    default="1:8:32",
    show_default=True,
    callback=_batch_range,
    metavar="MIN:OPT:MAX",
    help="Smallest, most usual and largest batch, or one number.",
)
@click.option(
    "--workspace-mib",
    type=click.IntRange(min=1),
    help="Scratch memory of the builder; default: a share of what is free.",
)
@click.option(
    "--timing-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of measured kernels to reuse; default: one beside the engines.",
)
@click.option("--strongly-typed", is_flag=True, help="TensorRT 10: let the graph's types decide.")
@click.option("--version-compatible", is_flag=True, help="An engine that later versions run too.")
@click.option("--hardware-compatible", is_flag=True, help="For every GPU from Ampere on.")
@click.option("--dla-core", type=click.IntRange(min=0), help="Build for a Jetson's DLA.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="0 builds fastest.")
@click.option("--rebuild", is_flag=True, help="Build even if this very engine is there.")
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

    The engine goes into the bundle's engines/ folder, with a .json beside it that says what it
    fits. TensorRT-RTX builds for GPUs that are not here; see --compute-capability.
    """
    from resdeploy.deploy.engine import build_engine
    from resdeploy.deploy.engine_request import BuildOptions

    options = BuildOptions(
        batch=batch,
        compute_capabilities=architectures,
        workspace_mib=workspace_mib,
        timing_cache=str(timing_cache) if timing_cache else None,
        strongly_typed=strongly_typed,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        dla_core=dla_core,
        optimization_level=optimization_level,
    )
    with progress_bar() as progress:
        engine = build_engine(
            bundle,
            precision=precision,
            flavor=flavor,
            options=options,
            rebuild=rebuild,
            progress=progress,
        )
    if as_json:
        print_json(engine.to_json())
        return
    _print_engine(engine)


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
        ("batch", ":".join(map(str, vars(sidecar.options.batch).values()))),
        ("size", f"{sidecar.plan_bytes / 1e6:.1f} MB"),
        ("build", f"{sidecar.build_seconds:.1f} s, {sidecar.peak_memory_mib} MiB of memory"),
    ]
    for name, counts in (("layers", layers), ("convolutions", convolutions)):
        if counts is not None:
            types = f"{counts.int8} int8, {counts.half} half, {counts.float} float"
            rows.append((name, f"{counts.total}: {types}"))
    print_table((f"{sidecar.precision} engine", ""), rows)
    if engine.reused:
        note("built earlier, exactly so, on this machine (--rebuild builds it again)")
