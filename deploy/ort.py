"""Opens ONNX graphs in ONNX Runtime, on the CPU, through CUDA or through TensorRT.

Every session of ONNX Runtime is opened here.

INT8 files written for TensorRT run with `session.disable_quant_qdq=1` on a CPU, so that ONNX
Runtime computes what the graph says (see `targets`); int8-cpu runs as it is.
"""

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import onnxruntime as ort

from resdeploy.deploy.errors import BackendError, BundleError, GraphError, first_line
from resdeploy.deploy.specs import Backend, TensorSpec, Variant
from resdeploy.deploy.targets import computed_as_written

_PROVIDERS: dict[Backend, str] = {
    "ort-cpu": "CPUExecutionProvider",
    "ort-cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
# fatal ones alone: errors are raised too, and what they print in colour precedes our line
_LOG_FATAL = 4


def session_options(
    variant: Variant = "fp32", threads: int | None = None, *, arena: bool = True
) -> ort.SessionOptions:
    """Options every session of this project uses; see the module's docstring for INT8.

    Without `arena` a session gives memory back after every run, which takes a little longer: for
    sessions of which many are open at once.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    options.enable_cpu_mem_arena = arena
    if threads is not None:
        options.intra_op_num_threads = threads
    if computed_as_written(variant):
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def providers() -> list[str]:
    """Execution providers compiled into this onnxruntime; being listed does not mean usable."""
    return list(ort.get_available_providers())


def open_graph(
    graph: Path | bytes,
    backend: Backend,
    options: ort.SessionOptions,
    provider_options: dict[str, str] | None = None,
) -> ort.InferenceSession:
    """ONNX Runtime's own session of a graph, a file or serialized, on one provider.

    Raises:
        BundleError: no such file.
        GraphError: ONNX Runtime cannot load the graph.
        BackendError: the provider is not usable on this machine.
    """
    provider = _PROVIDERS[backend]
    if provider not in ort.get_available_providers():
        raise BackendError(
            f"backend {backend}: this onnxruntime {ort.__version__} has no {provider}: "
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
        )
    if backend != "ort-cpu":
        _preload_cuda()
    session = load_session(graph, options, [(provider, provider_options or {})])
    if provider not in session.get_providers():
        raise BackendError(f"backend {backend}: {provider} does not start on this machine")
    return session


def load_session(
    graph: Path | bytes,
    options: ort.SessionOptions,
    chosen: list[tuple[str, dict[str, str]]] | None,
) -> ort.InferenceSession:
    """ONNX Runtime's session on the providers chosen here, or on those that the options name.

    Raises:
        BundleError, GraphError: as `open_graph`.
    """
    source = str(graph) if isinstance(graph, Path) else graph
    try:
        return ort.InferenceSession(source, options, providers=chosen)
    except Exception as error:  # onnxruntime raises its own classes derived from Exception
        what = str(graph) if isinstance(graph, Path) else "graph"
        if isinstance(graph, Path) and not graph.is_file():
            raise BundleError(f"{graph}: no such file") from error
        raise GraphError(f"{what}: ONNX Runtime cannot load it: {first_line(error)}") from error


def _preload_cuda() -> None:
    """Load CUDA libraries that came as Python wheels, which are not on the loader's path."""
    if hasattr(ort, "preload_dlls"):  # not before onnxruntime 1.21, e.g. on Jetsons
        with redirect_stdout(StringIO()):  # it prints what it does not find
            ort.preload_dlls()


def tensor_spec(argument: ort.NodeArg) -> TensorSpec:
    """An input or output of a graph; a dimension without a size is the batch."""
    shape = tuple(size if isinstance(size, int) else "batch" for size in argument.shape)
    dtype = argument.type.removeprefix("tensor(").rstrip(")")
    return TensorSpec(argument.name, shape, {"float": "float32"}.get(dtype, dtype))


@dataclass(frozen=True)
class GraphFacts:
    """What a graph says of itself: its metadata, and its first input and output."""

    properties: dict[str, str]
    input: TensorSpec
    output: TensorSpec


def read_facts(graph: Path) -> GraphFacts:
    """Read a graph without preparing it to run, which would take as long as loading it does.

    Raises:
        BundleError, GraphError: as `open_graph`.
    """
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_graph(graph, "ort-cpu", options)
    properties = dict(session.get_modelmeta().custom_metadata_map)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if not (inputs and outputs):
        raise GraphError(f"{graph}: {len(inputs)} inputs and {len(outputs)} outputs: no network")
    return GraphFacts(properties, tensor_spec(inputs[0]), tensor_spec(outputs[0]))
