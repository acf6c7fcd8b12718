"""Shares of the output error point to the layer that was broken on purpose."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.repair.sensitivity import quantized_nodes, shares
from resdeploy.calibration.weights.draft import Draft, rounded
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.targets import TENSORRT

Graphs = Callable[[str], onnx.ModelProto]


def _batches(model: onnx.ModelProto, images: int, seed: int = 5) -> list[Float32s]:
    """Smooth random images, whose errors correlate as those of photographs do."""
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((images, 3, size // 8, size // 8)).astype(np.float32)
    smooth = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return np.split(smooth, max(1, images // 8))


def _draft(model: onnx.ModelProto) -> Draft:
    batches = _batches(model, 32)
    observed = gather(model, lambda: batches, 32, threads=1)
    draft = Draft(model, TENSORRT, observed.ranges("minmax", TENSORRT))
    return rounded(draft, observed.moments)


def test_shares_find_the_broken_layer(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    draft = _draft(model)
    broken = draft.layers[3]
    weights = dict(draft.weights)
    good = weights[broken.weight]
    weights[broken.weight] = replace(good, values=(good.values // 16) * 16)
    measured = shares(replace(draft, weights=weights), _batches(model, 8), threads=1)
    assert next(iter(measured)) == broken.name
    assert sum(measured.values()) == pytest.approx(1, abs=0.4)
    assert set(measured) == set(quantized_nodes(draft))


def test_only_the_layers_asked_for_are_measured(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    draft = _draft(model)
    asked = quantized_nodes(draft)[2:4]
    assert set(shares(draft, _batches(model, 8), threads=1, among=asked)) == set(asked)
