"""A model of Triton's Python backend: encoded images in, the network's input out.

It is copied into the repository as model.py. The environment of the Python backend needs resdeploy
(NumPy and Pillow, no PyTorch): pip install resdeploy.
"""

import json
from typing import Any

import numpy as np

from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.serving.decode import decode


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the preprocessing from the parameters of config.pbtxt."""
        import triton_python_backend_utils  # only Triton has it

        self._triton = triton_python_backend_utils
        parameters = json.loads(args["model_config"])["parameters"]
        fields = json.loads(parameters["preprocess"]["string_value"])
        self._preprocess = Preprocess.from_json(fields, source="parameter preprocess")
        self._max_pixels = int(parameters["max_pixels"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """(N, 1) encoded images of each request to (N, 3, H, W) float32."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        triton = self._triton
        images = triton.get_input_tensor_by_name(request, "image").as_numpy().ravel()
        try:
            rows = [
                decode(bytes(image), self._preprocess, max_pixels=self._max_pixels).pixels
                for image in images
            ]
        except ResdeployError as error:
            return triton.InferenceResponse([], error=triton.TritonError(str(error)))
        return triton.InferenceResponse([triton.Tensor("input", np.stack(rows))])
