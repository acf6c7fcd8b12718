"""The network as a model of Triton's Python backend gives the classifier's logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy import load
from resdeploy.deploy.serving.repository import sources
from resdeploy.deploy.serving.triton.network_model import TritonPythonModel
from resdeploy.deploy.serving.triton.repository import TritonOptions, write_repository


def test_requests_of_several_sizes_get_the_logits_of_their_own_rows(
    tmp_path: Path, colours_bundle: Path, python_backend: Any
) -> None:
    options = TritonOptions("python", instances=1, max_batch=8, max_wait_ms=1.5)
    write_repository(sources([colours_bundle], ["fp32"]), tmp_path / "repository", options)
    home = next(path.parent.parent for path in tmp_path.rglob("model.onnx"))
    assert (home / "1" / "model.py").is_file()
    config = {"input": [{"name": "input"}], "output": [{"name": "logits"}]}
    model = TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(home),
            "model_version": "1",
        }
    )
    images = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    parts = (images[:2], images[2:])
    answers = model.execute([{"input": python_backend.Tensor("input", part)} for part in parts])
    with load(colours_bundle) as classifier:
        for part, answer in zip(parts, answers, strict=True):
            (tensor,) = answer.tensors
            assert tensor.name == "logits"
            np.testing.assert_allclose(
                tensor.as_numpy(), classifier.logits(part), rtol=1e-6, atol=1e-7
            )
    wrong = np.zeros((1, 3, 9, 9), np.float32)
    (refused,) = model.execute([{"input": python_backend.Tensor("input", wrong)}])
    assert refused.tensors == [] and "9" in refused.error
    model.finalize()
