"""A graph to a TensorRT plan, on any TensorRT from 8.5 to 11 and on TensorRT-RTX.

The module is an argument: nothing here imports TensorRT, so the same lines run on every version
and against the recorded interfaces of versions that are not installed. What a version may lack is
asked for by name, never by number. See `flavor` for the two ways of typing.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

from resdeploy.deploy.engine.error_hints import explain
from resdeploy.deploy.engine.flavor import network_flags
from resdeploy.deploy.engine.log import BuildLog, collection_paused
from resdeploy.deploy.engine.request import BuildRequest
from resdeploy.deploy.errors import BackendError, EngineError, InputError
from resdeploy.deploy.files import replaced_file, write_text
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.reading import read_text

_MIB = 1 << 20

# The flags of the weak way, by name.
_PRECISION_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}

_log = logging.getLogger(__name__)


@collection_paused()
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
        BackendError: the DLA core asked for is not there.
        InputError: an option that this version or flavour does not have.
    """
    logger = log.logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt, request.typing))
    parser = trt.OnnxParser(network, logger)
    _parse(trt, parser, network, request, log, has_gpu)
    config = _configuration(trt, builder, request, workspace_bytes, has_gpu)
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


def _configuration(
    trt: Any, builder: Any, request: BuildRequest, workspace_bytes: int, has_gpu: bool
) -> Any:
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
    return config


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
            f"DLA core {options.dla_core}: {_name(trt, request)} finds {cores} DLA cores here: "
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
    stored = _kept_timings(file)
    cache = config.create_timing_cache(stored)
    # a cache of another version or device is refused, and an empty one begun
    if stored and (cache is None or not config.set_timing_cache(cache, False)):
        _log.info("%s: made by another TensorRT or for another GPU; started a new one", file)
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
    file, timings = Path(request.options.timing_cache), bytes(memoryview(cache.serialize()))
    try:
        with replaced_file(file) as temporary:
            temporary.write_bytes(timings)
        write_text(_hash_of(file), hashlib.sha256(timings).hexdigest() + "\n")
    except InputError as error:
        # the next build is slower, this one is good
        _log.warning("timing cache not kept: %s", error)


def _kept_timings(file: Path) -> bytes:
    """The content of a timing cache; nothing where its hash tells that it was altered.

    It goes into native code. One that another tool wrote has no hash and is taken as it is.
    """
    if not file.is_file():
        return b""
    stored = file.read_bytes()
    try:
        expected = read_text(_hash_of(file)).strip()
    except FileNotFoundError:
        return stored
    except (OSError, ValueError):
        expected = ""
    if hashlib.sha256(stored).hexdigest() == expected:
        return stored
    _log.warning("%s: altered since it was written; started a new one", file)
    return b""


def _hash_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's progress (10.0 and later): the outer phases with their steps."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # trt is whichever is here
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
    return InputError(f"{option}: {_name(trt, request)} does not have it (it needs 8.6)")


def _name(trt: Any, request: BuildRequest) -> str:
    library = "TensorRT" if request.flavor == "tensorrt" else "TensorRT-RTX"
    return f"{library} {trt.__version__}"
