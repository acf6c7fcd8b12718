"""Builds the TensorRT engine of one precision of a bundle, for this machine or for a GPU named.

The build runs in a process of its own (`supervisor`). A plan appears in the engines folder only
when it is whole, with its sidecar (`sidecar`); `store` finds it again.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.exchange import sibling
from resdeploy.deploy.bundle.lone_file import manifest_for_engine
from resdeploy.deploy.bundle.model import Model, open_model
from resdeploy.deploy.bundle.update import changed_folder, is_mount_point
from resdeploy.deploy.cuda import cuda_problem, device
from resdeploy.deploy.defaults import ENGINE_FLAVOR, ENGINE_PRECISION
from resdeploy.deploy.engine.flavor import VARIANTS_READ, Flavor, Typing, import_tensorrt, typing_of
from resdeploy.deploy.engine.request import BuildOptions, BuildReport, BuildRequest
from resdeploy.deploy.engine.sidecar import (
    Machine,
    Sidecar,
    locked,
    read_plan,
    read_sidecar,
    write_sidecar,
)
from resdeploy.deploy.engine.store import Engine, engine_name, engines_folder
from resdeploy.deploy.engine.supervisor import SILENCE_LIMIT_S, run_build
from resdeploy.deploy.errors import BackendError, EngineError, InputError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.session import sizes_of
from resdeploy.deploy.specs import Precision, Variant
from resdeploy.deploy.temporaries import one_at_a_time, temporary_file


def build_engine(
    path: StrPath,
    *,
    precision: Precision = ENGINE_PRECISION,
    flavor: Flavor = ENGINE_FLAVOR,
    options: BuildOptions | None = None,
    rebuild: bool = False,
    progress: Progress = silent,
    silence_limit_s: float = SILENCE_LIMIT_S,
) -> Engine:
    """Build the engine of one precision of a bundle or ONNX file, unless it is up to date.

    Args:
        path: the bundle or the ONNX file; the engine goes into its engines folder.
        options: batch range, memory, target and so on; see `BuildOptions`.
        rebuild: build even when the engine that is there is up to date.
        progress: told of the builder's phases, where the version has a progress monitor (10.0).
        silence_limit_s: how long the builder may say nothing before it counts as hung.

    Raises:
        MissingDependencyError: the flavour is not installed (exit code 4).
        BackendError: no GPU to build for, or none of the kind asked for.
        BundleError: the precision's graph is not in the bundle, or was altered.
        EngineError: TensorRT refuses the graph, crashes, hangs or runs out of memory.
        InputError: options that contradict each other, or a folder that cannot be written.
    """
    build = _planned(open_model(path), precision, flavor, options or BuildOptions())
    if not rebuild and (found := _existing(build)):
        return found
    with _temporary(build.engine) as plan:
        request = replace(build.request, plan=str(plan))
        report = run_build(request, progress=progress, silence_limit_s=silence_limit_s)
        sidecar = _sidecar(build, report, plan)
        _publish(plan, build.engine, sidecar)
    return Engine(build.engine, sidecar)


@dataclass(frozen=True)
class _Build:
    """A build as it was decided, before it runs; `options` are those that the engine depends on."""

    engine: Path
    request: BuildRequest
    machine: Machine
    variant: Variant
    graph_sha256: str
    targets: tuple[str, ...]
    options: BuildOptions
    manifest: dict[str, Any]


def _planned(model: Model, precision: Precision, flavor: Flavor, options: BuildOptions) -> _Build:
    trt = import_tensorrt(flavor)
    targets = _targets(flavor, precision, options)
    typing = typing_of(trt, strongly_typed=options.strongly_typed)
    variant = _variant(model, precision, typing)
    graph = model.graph(variant)
    machine = Machine.here(flavor, trt.__version__)
    folder = _made(engines_folder(model))
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
    engine = folder / engine_name(precision, machine, targets, options)
    kept = replace(options, timing_cache=None)
    return _Build(
        engine=engine,
        request=request,
        machine=machine,
        variant=variant,
        graph_sha256=sha256_file(graph),
        targets=targets,
        options=kept,
        manifest=manifest_for_engine(model.manifest, variant),
    )


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
            raise InputError(f"{name}: TensorRT-RTX has no such option: leave it out")
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


def _existing(build: _Build) -> Engine | None:
    """The engine that is there, if it is up to date: same machine, options and graph."""
    try:
        sidecar = read_sidecar(build.engine)
        wanted = (build.machine, build.options, build.graph_sha256)
        if (sidecar.machine, sidecar.options, sidecar.graph_sha256) != wanted:
            return None
        if sidecar.manifest is None:  # of an older resdeploy: it would not predict by itself
            return None
        read_plan(build.engine)
    except (EngineError, OSError):
        return None
    return Engine(build.engine, sidecar, reused=True)


def _timing_cache(
    options: BuildOptions, folder: Path, machine: Machine, targets: tuple[str, ...]
) -> str | None:
    if options.timing_cache is not None or machine.flavor == "tensorrt-rtx":
        return options.timing_cache
    # measured kernels hold for one version on one kind of device
    gpu = re.sub(r"[^a-z0-9]+", "-", (machine.gpu or "gpu").lower()).strip("-")
    return str(folder / f"timing-{machine.version}-{gpu}-sm{targets[0].replace('.', '')}.cache")


def _sidecar(build: _Build, report: BuildReport, plan: Path) -> Sidecar:
    return Sidecar(
        machine=replace(build.machine, version=report.version),
        precision=build.request.precision,
        variant=build.variant,
        typing=build.request.typing,
        compute_capabilities=build.targets,
        options=build.options,
        graph_sha256=build.graph_sha256,
        plan_sha256=sha256_file(plan),
        plan_bytes=plan.stat().st_size,
        build_seconds=report.seconds,
        workspace_mib=report.workspace_mib,
        free_memory_mib=report.free_memory_mib,
        peak_memory_mib=report.peak_memory_mib,
        warnings=report.warnings,
        layers=report.layers,
        convolutions=report.convolutions,
        manifest=build.manifest,
    )


def _publish(plan: Path, engine: Path, sidecar: Sidecar) -> None:
    """Put an engine and its sidecar in place in one step, with all that lies beside them.

    Where the folder is a volume of its own or nothing may be made beside it, in two steps.
    """
    place = folder = engine.parent.resolve()
    with ExitStack() as stack:
        stack.enter_context(one_at_a_time(place.parent.parent))  # a bundle may be replaced there
        stack.enter_context(locked(place))
        if not is_mount_point(place) and os.access(place.parent, os.W_OK):
            folder = stack.enter_context(sibling(place))
            stack.enter_context(changed_folder(folder, place))
        os.replace(folder / plan.name, folder / engine.name)
        write_sidecar(folder / engine.name, sidecar)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    return folder


@contextmanager
def _temporary(engine: Path) -> Iterator[Path]:
    """A path for the plan being built, gone afterwards however the build ends."""
    with ExitStack() as stack:
        try:
            plan = stack.enter_context(temporary_file(engine))
        except OSError as error:
            raise InputError(f"{engine.parent}: cannot be written: {error.strerror}") from error
        yield plan
