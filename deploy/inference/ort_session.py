"""Runs an ONNX graph in ONNX Runtime as a `Session`."""

from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import BackendError, first_line
from resdeploy.deploy.inference.ort_plugins import PLUGINS, open_on_plugin
from resdeploy.deploy.ort import open_graph, session_options, tensor_spec
from resdeploy.deploy.session import ClosesOnExit, check_batch
from resdeploy.deploy.specs import GPU_BACKENDS, Backend, Variant


class OrtSession(ClosesOnExit):
    """A `Session` over ONNX Runtime; `run` may be called from several threads at once."""

    def __init__(
        self,
        graph: Path | bytes,
        *,
        backend: Backend = "ort-cpu",
        variant: Variant = "fp32",
        threads: int | None = None,
        cache: Path | None = None,
        arena: bool = True,
    ) -> None:
        """Load a graph from its path or its bytes.

        Args:
            cache: folder where ort-tensorrt keeps its engines, so that only the first opening on
                a machine takes minutes.
            arena: keep the memory of a run for the next (see `deploy.ort.session_options`).

        Raises:
            BackendError: the provider is not in this onnxruntime or does not start.
            GraphError: ONNX Runtime refuses the graph.
        """
        self.backend = backend
        self.variant = variant
        self.threads = threads
        provider = _provider_options(backend, variant, cache)
        options = session_options(variant, threads, arena=arena)
        if backend in PLUGINS:
            self._session = open_on_plugin(graph, backend, options)
        else:
            self._session = open_graph(graph, backend, options, provider)
        self.input = tensor_spec(self._session.get_inputs()[0])
        self.outputs = tuple(tensor_spec(value) for value in self._session.get_outputs())
        self.output = self.outputs[-1]

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, classes) float32.

        Raises:
            InputError: wrong shape or dtype.
            BackendError: the provider failed while running (no kernel for this GPU, memory).
        """
        (logits,) = self._run([self.output.name], batch)
        return logits

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """Every output by its name; else as `run`."""
        names = [output.name for output in self.outputs]
        return dict(zip(names, self._run(names, batch), strict=True))

    def _run(self, names: list[str], batch: Float32s) -> list[Float32s]:
        check_batch(batch, self.input)
        try:
            if self.backend not in GPU_BACKENDS:
                results = self._session.run(names, {self.input.name: batch})
            else:
                results = self._run_bound(names, batch)
        except Exception as error:  # onnxruntime raises its own classes derived from Exception
            raise BackendError(f"{self.backend}: inference failed: {first_line(error)}") from error
        return list(results)

    def _run_bound(self, names: list[str], batch: Float32s) -> list[Float32s]:
        """Run with the input's copy to the device, and the outputs' back, on the run's own stream.

        A binding of its own for every run keeps threads apart.
        """
        binding = self._session.io_binding()
        binding.bind_cpu_input(self.input.name, np.ascontiguousarray(batch))
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        results: list[Float32s] = binding.copy_outputs_to_cpu()
        return results

    def close(self) -> None:
        """Release the session; a later `run` fails."""
        self._session = None


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
