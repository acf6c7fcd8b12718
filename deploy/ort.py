"""Runs an ONNX graph in ONNX Runtime, on the CPU, through CUDA or through TensorRT.

The only home of onnxruntime.

How INT8 is evaluated on a CPU is decided here, so that nobody has to know:

* `int8` and `int8-fp16` are written for TensorRT. ONNX Runtime's AVX2 kernels would fuse their
  Q/DQ pairs and saturate; `session.disable_quant_qdq=1` makes it compute what the graph says,
  which is what TensorRT computes up to rounding.
* `int8-cpu` is written for these kernels and runs as it is.
"""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import TracebackType

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from resdeploy.deploy.errors import BackendError, BundleError, GraphError
from resdeploy.deploy.manifest import Manifest, manifest_of_graph
from resdeploy.deploy.session import check_batch
from resdeploy.deploy.specs import Backend, TensorSpec, Variant

_PROVIDERS: dict[Backend, str] = {
    "ort-cpu": "CPUExecutionProvider",
    "ort-cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
_LOG_ERRORS_ONLY = 3


class OrtSession:
    """A `Session` over ONNX Runtime; `run` may be called from several threads at once."""

    def __init__(
        self,
        graph: Path | bytes,
        *,
        backend: Backend = "ort-cpu",
        variant: Variant = "fp32",
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Load a graph from its path or its bytes.

        Args:
            cache: folder where ort-tensorrt keeps its engines, so that only the first opening on
                a machine takes minutes.

        Raises:
            BackendError: the provider is not in this onnxruntime or does not start.
            GraphError: ONNX Runtime refuses the graph.
        """
        self.backend = backend
        self.variant = variant
        self.threads = threads
        provider = _provider_options(backend, variant, cache)
        self._session = open_graph(graph, backend, session_options(variant, threads), provider)
        self.input = _spec(self._session.get_inputs()[0])
        self.output = _spec(self._session.get_outputs()[0])

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) float32 to (N, classes) float32.

        Raises:
            InputError: wrong shape or dtype.
            BackendError: the provider failed while running (no kernel for this GPU, memory).
        """
        check_batch(batch, self.input)
        try:
            if self.backend == "ort-cpu":
                (logits,) = self._session.run([self.output.name], {self.input.name: batch})
            else:
                logits = self._run_bound(batch)
        except Exception as error:  # onnxruntime raises its own classes derived from Exception
            raise BackendError(f"{self.backend}: inference failed: {first_line(error)}") from error
        result: NDArray[np.float32] = logits
        return result

    def _run_bound(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run with the input's copy to the device, and the output's back, on the run's own stream.

        A binding of its own for every run keeps threads apart.
        """
        binding = self._session.io_binding()
        binding.bind_cpu_input(self.input.name, np.ascontiguousarray(batch))
        binding.bind_output(self.output.name, "cpu")
        self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        return logits

    def close(self) -> None:
        """Release the session; a later `run` fails."""
        self._session = None

    def __enter__(self) -> "OrtSession":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def session_options(variant: Variant = "fp32", threads: int | None = None) -> ort.SessionOptions:
    """Options every session of this project uses; see the module's docstring for INT8."""
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    if variant in ("int8", "int8-fp16"):
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def read_graph_manifest(path: Path) -> Manifest:
    """The manifest inside a lone ONNX file; raises BundleError when it carries none."""
    options = session_options()
    # only read, never run: preparing it to run fast would take as long as loading it does
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_graph(path, "ort-cpu", options)
    properties = session.get_modelmeta().custom_metadata_map
    manifest, _ = manifest_of_graph(
        properties,
        path,
        _spec(session.get_inputs()[0]),
        _spec(session.get_outputs()[0]),
        opset=int(properties.get("opset", 0)),
    )
    return manifest


def providers() -> list[str]:
    """Execution providers compiled into this onnxruntime; being listed does not mean usable."""
    return list(ort.get_available_providers())


def first_line(error: BaseException) -> str:
    """ONNX Runtime's message without its code position and following lines."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _provider_options(backend: Backend, variant: Variant, cache: Path | None) -> dict[str, str]:
    """What the provider must be told; TensorRT's finds its precision in flags, not in the graph."""
    if backend != "ort-tensorrt":
        return {}
    options = {
        "trt_fp16_enable": str(int(variant != "fp32")),
        "trt_int8_enable": str(int(variant.startswith("int8"))),
    }
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        for kind in ("engine", "timing"):
            options |= {f"trt_{kind}_cache_enable": "1", f"trt_{kind}_cache_path": str(cache)}
    return options


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
            "pip install onnxruntime-gpu"
        )
    if backend != "ort-cpu":
        _preload_cuda()
    source = str(graph) if isinstance(graph, Path) else graph
    try:
        session = ort.InferenceSession(
            source, options, providers=[(provider, provider_options or {})]
        )
    except Exception as error:  # onnxruntime raises its own classes derived from Exception
        what = str(graph) if isinstance(graph, Path) else "graph"
        if isinstance(graph, Path) and not graph.is_file():
            raise BundleError(f"{graph}: no such file") from error
        raise GraphError(f"{what}: ONNX Runtime cannot load it: {first_line(error)}") from error
    if provider not in session.get_providers():
        raise BackendError(f"backend {backend}: {provider} does not start on this machine")
    return session


def _preload_cuda() -> None:
    """Load CUDA libraries that came as Python wheels, which are not on the loader's path."""
    if hasattr(ort, "preload_dlls"):  # not before onnxruntime 1.21, e.g. on Jetsons
        with redirect_stdout(StringIO()):  # it prints what it does not find
            ort.preload_dlls()


def _spec(argument: ort.NodeArg) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else "batch" for size in argument.shape)
    dtype = argument.type.removeprefix("tensor(").rstrip(")")
    return TensorSpec(argument.name, shape, {"float": "float32"}.get(dtype, dtype))
