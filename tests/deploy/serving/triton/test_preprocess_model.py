"""The model that Triton's Python backend runs gives the pixels that `predict` sees."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.serving.repository import sources
from resdeploy.deploy.serving.triton.repository import TritonOptions, write_repository

_CPU = TritonOptions("ort-cpu", instances=2, max_batch=8, max_wait_ms=1.5)


def test_the_python_model_preprocesses_as_predict_does(
    tmp_path: Path, colours_bundle: Path, python_backend: Any
) -> None:
    write_repository(sources([colours_bundle]), tmp_path / "repository", _CPU)
    home = tmp_path / "repository" / "colours_preprocess"
    program: dict[str, Any] = {"__name__": "model"}
    exec((home / "1" / "model.py").read_text(), program)
    parameters = {
        "preprocess": {"string_value": json.dumps(named("half", 8).to_json())},
        "max_pixels": {"string_value": "100000"},
    }
    model = program["TritonPythonModel"]()
    model.initialize({"model_config": json.dumps({"parameters": parameters})})
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    stream = BytesIO()
    Image.fromarray(pixels[::-1].copy()).save(stream, "WEBP")
    images = np.array([[(tmp_path / "noise.png").read_bytes()], [stream.getvalue()]], object)
    good, bad = model.execute(
        [
            {"image": python_backend.Tensor("image", images)},
            {"image": python_backend.Tensor("image", np.array([[b"no"]], object))},
        ]
    )
    (tensor,) = good.tensors
    assert tensor.name == "input" and tensor.as_numpy().shape == (2, 3, 8, 8)
    expected = read_input(tmp_path / "noise.png", named("half", 8))
    np.testing.assert_array_equal(tensor.as_numpy()[0], expected)
    assert bad.tensors == [] and "no JPEG" in bad.error
