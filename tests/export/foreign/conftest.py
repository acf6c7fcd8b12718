"""Classifiers as other tools write them, in text, with the answers they must keep giving."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.deploy.arrays import Float32s
from tests.builders import graph_of

Draw = Callable[..., Path]

_RANDOM = np.random.default_rng(3)
WEIGHTS = {
    "w1": _RANDOM.normal(0, 0.4, (6, 3, 3, 3)),
    "gain": _RANDOM.uniform(0.5, 1.5, 6),
    "offset": _RANDOM.normal(0, 0.2, 6),
    "mean": _RANDOM.normal(0, 0.2, 6),
    "variance": _RANDOM.uniform(0.5, 1.5, 6),
    "w2": _RANDOM.normal(0, 0.5, (4, 6)),
    "b2": _RANDOM.normal(0, 0.5, 4),
}

# what the exporters write before the images reach the first convolution, and after the logits
BODY = """
    [c1] c1 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (images, w1)
    [n1] n1 = BatchNormalization (c1, gain, offset, mean, variance)
    [r1] r1 = Relu (n1)
    [g] g = GlobalAveragePool (r1)
    {flat}
    [z] z = Gemm <transB = 1> (f, w2, b2)
"""


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Writes a graph: its ends as text, the body as above; returns the file."""

    def write(
        image: str = "float[N, 3, 16, 16] images",
        *,
        before: str = "",
        after: str = "[p] p = Softmax (z)",
        answers: str = "float[N, 4] p",
        flat: str = "[f] f = Flatten (g)",
        opset: int = 17,
        name: str = "model.onnx",
    ) -> Path:
        text = (
            f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
            f"net ({image}) => ({answers}) {{\n{before}{BODY.format(flat=flat)}{after}\n}}"
        )
        onnx.save(graph_of(text, WEIGHTS), tmp_path / name)
        return tmp_path / name

    return write


def by_hand(images: Float32s) -> Float32s:
    """The logits of the graph for (N, 3, 16, 16), computed in float64."""
    w = {name: values.astype(np.float32).astype(np.float64) for name, values in WEIGHTS.items()}
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    convolved = np.einsum("nchwij,ocij->nohw", windows, w["w1"])
    column = {name: w[name][:, None, None] for name in ("gain", "offset", "mean", "variance")}
    scaled = (convolved - column["mean"]) / np.sqrt(column["variance"] + 1e-5)
    rectified = np.maximum(scaled * column["gain"] + column["offset"], 0)
    logits: Float32s = (rectified.mean((2, 3)) @ w["w2"].T + w["b2"]).astype(np.float32)
    return logits
