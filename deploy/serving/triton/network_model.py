"""A model of Triton's Python backend: the network in ONNX Runtime, by resdeploy.

For a Triton without the ONNX Runtime backend. It is copied into the repository as model.py, beside
the ONNX file. The environment of the Python backend needs it: pip install 'resdeploy[runtime]'.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.inference.classifier import load


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network with one thread; as many run at once as there are instances."""
        import triton_python_backend_utils  # only Triton has it

        self._triton = triton_python_backend_utils
        config = json.loads(args["model_config"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        graph = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._classifier = load(graph, backend="ort-cpu", threads=1)

    def execute(self, requests: list[Any]) -> list[Any]:
        """(N, 3, H, W) float32 of each request to (N, classes) float32, all in one run."""
        triton = self._triton
        inputs = [
            triton.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests
        ]
        try:
            logits = self._classifier.logits(np.concatenate(inputs))
        except ResdeployError as error:
            reason = triton.TritonError(str(error))
            return [triton.InferenceResponse([], error=reason) for _ in requests]
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return [
            triton.InferenceResponse([triton.Tensor(self._output, np.ascontiguousarray(part))])
            for part in np.split(logits, ends)
        ]

    def finalize(self) -> None:
        """Release the session."""
        self._classifier.close()
