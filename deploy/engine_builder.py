"""A graph to a TensorRT plan, on any TensorRT from 8.5 to 11 and on TensorRT-RTX.

The module is an argument: nothing here imports TensorRT, so the same lines run on every version
and against the recorded interfaces of versions that are not installed. What a version may lack is
asked for by name, never by number. See `flavor` for the two ways of typing.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resdeploy.deploy.engine_hints import explain
from resdeploy.deploy.engine_request import BuildRequest
from resdeploy.deploy.errors import BackendError, EngineError, InputError
from resdeploy.deploy.flavor import network_flags
from resdeploy.deploy.layer_table import Layer, is_layer_table, read_layer_table
from resdeploy.deploy.output import Progress

_MIB = 1 << 20

# The flags of the weak way, by name.
_PRECISION_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}

_log = logging.getLogger(__name__)


class BuildLog:
    """What TensorRT said: its errors, warnings and the layer table. `heard` is called each time."""

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.layers: tuple[Layer, ...] = ()
        self._heard = heard

    def logger(self, trt: Any) -> Any:
        """An ILogger of this library that writes here."""
        keep = self._keep

        class Logger(trt.ILogger):  # type: ignore[misc]  # trt is whichever module is here
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # pybind refuses super() here on 8.x

            def log(self, severity: Any, message: str) -> None:
                keep(severity.name, message)

        return Logger()

    def _keep(self, severity: str, message: str) -> None:
        self._heard()
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(message)
        elif severity == "WARNING":
            self.warnings.append(message)
        elif is_layer_table(message):
            self.layers = read_layer_table(message)


def build_plan(
    trt: Any,
    request: BuildRequest,
    log: BuildLog,
    *,
    workspace_bytes: int,
    has_gpu: bool,
    progress: Progress,
) -> Any:
    """Build; the result supports the buffer protocol.

    Raises:
        EngineError: the graph is refused, the profile does not fit, or the build fails; the message
            has TensorRT's own words and what to do.
        BackendError: the target asked for (a DLA core, an architecture) is not there.
        InputError: an option that this version or flavour does not have.
    """
    logger = log.logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt, request.typing))
    parser = trt.OnnxParser(network, logger)
    _parse(trt, parser, network, request, log, has_gpu)
    config = builder.create_builder_config()
    _set_precision(trt, config, request)
    _set_target(trt, builder, config, request, has_gpu)
    _set_compatibility(trt, config, request)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.options.optimization_level is not None:
        _set_if_there(trt, config, "builder_optimization_level", request.options.optimization_level)
    _add_profile(builder, config, request)
    _load_timing_cache(config, request)
    monitor = _monitor(trt, progress) if hasattr(config, "progress_monitor") else None
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{request.graph}: {_name(trt, request)} could not build it: "
            f"{explain(log.errors, has_gpu=has_gpu)}"
        )
    _save_timing_cache(config, request)
    return plan


def _parse(
    trt: Any, parser: Any, network: Any, request: BuildRequest, log: BuildLog, has_gpu: bool
) -> None:
    # from_file, so that a graph above 2 GiB with its weights beside it would do as well
    parsed = parser.parse_from_file(request.graph)
    errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    if parsed and network.num_layers > 0 and network.num_outputs > 0:
        return
    if parsed and not errors:
        # the parser says True to a text file and to an empty one
        raise EngineError(
            f"{request.graph}: no ONNX graph in it ({network.num_layers} layers, "
            f"{network.num_outputs} outputs found): export again"
        )
    reason = explain([*errors, *log.errors], has_gpu=has_gpu)
    raise EngineError(f"{request.graph}: {_name(trt, request)} cannot read it: {reason}")


def _parser_error(error: Any) -> str:
    """The description with the node's name, which 8.x does not tell."""
    description = str(error.desc())
    if hasattr(error, "node_name") and error.node_name():
        return f"node {error.node_name()} ({error.node_operator()}): {description}"
    return description


def _set_precision(trt: Any, config: Any, request: BuildRequest) -> None:
    if request.typing == "weak":
        for name in _PRECISION_FLAGS[request.precision]:
            config.set_flag(getattr(trt.BuilderFlag, name))


def _set_target(trt: Any, builder: Any, config: Any, request: BuildRequest, has_gpu: bool) -> None:
    options = request.options
    if request.flavor == "tensorrt-rtx":
        _set_architectures(trt, config, options.compute_capabilities, has_gpu)
    if options.dla_core is None:
        return
    cores = builder.num_DLA_cores
    if options.dla_core >= cores:
        raise BackendError(
            f"DLA core {options.dla_core}: this machine offers {cores} to {_name(trt, request)}: "
            "build without --dla-core"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    # a classifier's last layers do not run on a DLA
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _set_architectures(
    trt: Any, config: Any, compute_capabilities: tuple[str, ...], has_gpu: bool
) -> None:
    known = trt.ComputeCapability
    names = [f"SM{text.replace('.', '')}" for text in compute_capabilities]
    if not names and has_gpu:
        names = ["CURRENT"]
    for name, text in zip(names, compute_capabilities, strict=False):
        if not hasattr(known, name):
            numbers = sorted(int(name[2:]) for name in dir(known) if name.startswith("SM"))
            offered = ", ".join(f"{number // 10}.{number % 10}" for number in numbers)
            raise InputError(
                f"--compute-capability {text}: TensorRT-RTX {trt.__version__} builds for {offered}"
            )
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(known, name), index)


def _set_compatibility(trt: Any, config: Any, request: BuildRequest) -> None:
    if request.options.version_compatible:
        if not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
            raise _lacks(trt, request, "--version-compatible")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if request.options.hardware_compatible:
        if not hasattr(config, "hardware_compatibility_level"):
            raise _lacks(trt, request, "--hardware-compatible")
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _set_if_there(trt: Any, config: Any, name: str, value: Any) -> None:
    if not hasattr(config, name):
        raise InputError(f"TensorRT {trt.__version__} has no {name}: leave that option out")
    setattr(config, name, value)


def _add_profile(builder: Any, config: Any, request: BuildRequest) -> None:
    batch = request.options.batch
    shapes = [(size, *request.input_sizes) for size in (batch.min, batch.opt, batch.max)]
    profile = builder.create_optimization_profile()
    profile.set_shape(request.input_name, *shapes)
    # a profile that makes no sense is not an exception but the index -1
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(
            f"{request.graph}: the batch range {batch.min}:{batch.opt}:{batch.max} for input "
            f"{request.input_name} of shape {shapes[0][1:]} was refused: check --batch"
        )


def _load_timing_cache(config: Any, request: BuildRequest) -> None:
    if request.options.timing_cache is None:
        return
    file = Path(request.options.timing_cache)
    stored = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(stored)
    # a cache of another version or device is refused, and an empty one begun
    if stored and (cache is None or not config.set_timing_cache(cache, False)):
        _log.info("%s: not of this TensorRT and GPU, begun anew", file)
        stored = b""
        cache = config.create_timing_cache(stored)
    if not stored:
        config.set_timing_cache(cache, False)


def _save_timing_cache(config: Any, request: BuildRequest) -> None:
    if request.options.timing_cache is None:
        return
    cache = config.get_timing_cache()
    if cache is None:
        return
    file = Path(request.options.timing_cache)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(memoryview(cache.serialize()))
        temporary.replace(file)
    except OSError as error:
        # the next build is slower, this one is good
        _log.warning("%s: timing cache not kept: %s", file, error)
    finally:
        temporary.unlink(missing_ok=True)


def _monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's progress (10.0 and later): the outer phases with their steps."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase or parent_phase in self.steps:
                self.steps[phase_name] = num_steps
                progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                progress(phase_name, step + 1, self.steps[phase_name])
            return True  # go on; to end a build, its process is ended

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def _lacks(trt: Any, request: BuildRequest, option: str) -> InputError:
    return InputError(f"{option}: {_name(trt, request)} does not have it (8.6 and later have)")


def _name(trt: Any, request: BuildRequest) -> str:
    library = "TensorRT" if request.flavor == "tensorrt" else "TensorRT-RTX"
    return f"{library} {trt.__version__}"
