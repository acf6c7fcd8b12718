"""Builds the TensorRT engine of one precision of a bundle, for this machine or for a GPU named.

The build runs in a process of its own (`engine_process`); a plan appears in the engines folder only
when it is whole, with its sidecar (`engine_sidecar`), and `engine_store` finds it again.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from resdeploy.deploy.cuda import cuda_problem, device
from resdeploy.deploy.engine_process import SILENCE_LIMIT_S, run_build
from resdeploy.deploy.engine_request import BuildOptions, BuildReport, BuildRequest
from resdeploy.deploy.engine_sidecar import (
    Machine,
    Sidecar,
    locked,
    read_plan,
    read_sidecar,
    write_sidecar,
)
from resdeploy.deploy.engine_store import Engine, engine_name, engines_folder
from resdeploy.deploy.errors import BackendError, EngineError, InputError
from resdeploy.deploy.flavor import VARIANTS_READ, Flavor, Typing, import_tensorrt, typing_of
from resdeploy.deploy.manifest import sha256_file
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.session import Model, open_model, sizes_of
from resdeploy.deploy.specs import Precision, Variant


def build_engine(
    path: str | Path,
    *,
    precision: Precision = "fp16",
    flavor: Flavor = "tensorrt",
    options: BuildOptions | None = None,
    rebuild: bool = False,
    progress: Progress = silent,
    silence_limit_s: float = SILENCE_LIMIT_S,
) -> Engine:
    """Build the engine of one precision of a bundle (or lone ONNX file), unless it is there.

    Args:
        path: the bundle or the ONNX file; the engine goes into its engines folder.
        options: batch range, memory, target and so on; see `BuildOptions`.
        rebuild: build even when an engine built exactly so, on this machine, is there.
        progress: told of the builder's phases, where the version has a progress monitor (10.0).
        silence_limit_s: how long the builder may say nothing before it counts as hung.

    Raises:
        MissingDependencyError: the flavour is not installed (exit code 4).
        BackendError: no GPU to build for, or none of the kind asked for.
        BundleError: the precision's graph is not in the bundle, or was altered.
        EngineError: TensorRT refuses the graph, crashes, hangs or runs out of memory.
        InputError: options that contradict each other, or a folder that cannot be written.
    """
    options = options or BuildOptions()
    model = open_model(path)
    trt = import_tensorrt(flavor)
    targets = _targets(flavor, precision, options)
    typing = typing_of(trt, strongly_typed=options.strongly_typed)
    variant = _variant(model, precision, typing)
    graph = model.graph(variant)
    machine = Machine.here(flavor, trt.__version__)
    folder = _made(engines_folder(model))
    engine = folder / engine_name(precision, machine, targets, options)
    kept = replace(options, timing_cache=None)
    if not rebuild and (found := _existing(engine, machine, kept, sha256_file(graph))):
        return found
    request = BuildRequest(
        graph=str(graph),
        plan="",
        flavor=flavor,
        precision=precision,
        typing=typing,
        input_name=model.manifest.input.name,
        input_sizes=sizes_of(model.manifest.input),
        options=replace(options, timing_cache=_timing_cache(options, folder, machine, targets)),
    )
    with _temporary(folder) as plan:
        report = run_build(
            replace(request, plan=str(plan)), progress=progress, silence_limit_s=silence_limit_s
        )
        made = replace(machine, version=report.version)
        sidecar = _sidecar(request, report, plan, made, variant, targets, kept)
        _publish(plan, engine, sidecar)
    return Engine(engine, sidecar)


def _targets(flavor: Flavor, precision: Precision, options: BuildOptions) -> tuple[str, ...]:
    """The architectures to build for, after the options were checked against them."""
    asked = tuple(dict.fromkeys(options.compute_capabilities))
    for text in asked:
        if not re.fullmatch(r"\d{1,2}\.\d", text):
            raise InputError(f"compute capability {text!r} is not like 8.6 or 12.0")
    gpu = device()
    _check_options(flavor, precision, options)
    if flavor == "tensorrt-rtx" and asked:
        return asked
    if gpu is None:
        advice = (
            "name the GPU to build for, e.g. --compute-capability 8.6"
            if flavor == "tensorrt-rtx"
            else "build on the machine that will run the engine"
        )
        raise BackendError(f"no GPU to build for: {cuda_problem()}: {advice}")
    if asked and asked != (gpu.compute_capability,):
        raise InputError(
            f"--compute-capability {','.join(asked)}: TensorRT builds for the GPU at hand, which "
            f"has {gpu.compute_capability}: build on the target, or use --flavor tensorrt-rtx"
        )
    return (gpu.compute_capability,)


def _check_options(flavor: Flavor, precision: Precision, options: BuildOptions) -> None:
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise InputError(f"workspace of {options.workspace_mib} MiB: expected at least 1")
    if flavor == "tensorrt-rtx":
        refused = {
            "--timing-cache": options.timing_cache is not None,
            "--version-compatible": options.version_compatible,
            "--hardware-compatible": options.hardware_compatible,
            "--dla-core": options.dla_core is not None,
        }
        if name := next((name for name, given in refused.items() if given), None):
            raise InputError(f"{name}: TensorRT-RTX has no such thing: leave it out")
    if options.dla_core is not None:
        batch = options.batch
        if precision == "fp32" or not batch.min == batch.max:
            raise InputError(
                f"--dla-core {options.dla_core}: a DLA runs fp16 or int8 at one batch size: use "
                "--precision fp16 and e.g. --batch 1"
            )


def _variant(model: Model, precision: Precision, typing: Typing) -> Variant:
    choices = VARIANTS_READ[typing][precision]
    return next((name for name in choices if name in model.manifest.variants), choices[-1])


def _existing(engine: Path, machine: Machine, options: BuildOptions, graph: str) -> Engine | None:
    """The engine that is there, if it was built exactly so, of this graph, in this state."""
    try:
        sidecar = read_sidecar(engine)
        if (sidecar.machine, sidecar.options, sidecar.graph_sha256) != (machine, options, graph):
            return None
        read_plan(engine)
    except (EngineError, OSError):
        return None
    return Engine(engine, sidecar, reused=True)


def _timing_cache(
    options: BuildOptions, folder: Path, machine: Machine, targets: tuple[str, ...]
) -> str | None:
    if options.timing_cache is not None or machine.flavor == "tensorrt-rtx":
        return options.timing_cache
    # measured kernels hold for one version on one kind of device
    gpu = re.sub(r"[^a-z0-9]+", "-", (machine.gpu or "gpu").lower()).strip("-")
    return str(folder / f"timing-{machine.version}-{gpu}-sm{targets[0].replace('.', '')}.cache")


def _sidecar(
    request: BuildRequest,
    report: BuildReport,
    plan: Path,
    machine: Machine,
    variant: Variant,
    targets: tuple[str, ...],
    options: BuildOptions,
) -> Sidecar:
    return Sidecar(
        machine=machine,
        precision=request.precision,
        variant=variant,
        typing=request.typing,
        compute_capabilities=targets,
        options=options,
        graph_sha256=sha256_file(Path(request.graph)),
        plan_sha256=sha256_file(plan),
        plan_bytes=plan.stat().st_size,
        build_seconds=report.seconds,
        workspace_mib=report.workspace_mib,
        free_memory_mib=report.free_memory_mib,
        peak_memory_mib=report.peak_memory_mib,
        warnings=report.warnings,
        layers=report.layers,
        convolutions=report.convolutions,
    )


def _publish(plan: Path, engine: Path, sidecar: Sidecar) -> None:
    with locked(engine.parent):
        os.replace(plan, engine)
        write_sidecar(engine, sidecar)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    return folder


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A path for the plan being built, gone afterwards however the build ends."""
    try:
        handle, name = tempfile.mkstemp(prefix=".building.", dir=folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    os.close(handle)
    path = Path(name)
    path.chmod(0o644)  # mkstemp's 0600 would keep the engine from other users
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
