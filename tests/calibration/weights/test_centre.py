"""Centring keeps every answer, padding included, and makes ranges symmetric."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.checker
import pytest

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.ranges.methods import min_max
from resdeploy.calibration.ranges.observers import Extremes
from resdeploy.calibration.ranges.ranges import Range, symmetric_scale
from resdeploy.calibration.weights.centre import centre
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.metrics.logits import sqnr_db

Graphs = Callable[[str], onnx.ModelProto]


def _images(model: onnx.ModelProto) -> Float32s:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return np.random.default_rng(5).standard_normal((4, 3, size, size), np.float32)


def _ranges(model: onnx.ModelProto) -> dict[str, Range]:
    extremes = {tensor: Extremes() for tensor in plan(model).activations}
    collect(model, [_images(model)], {tensor: [e] for tensor, e in extremes.items()})
    return {tensor: min_max(e) for tensor, e in extremes.items()}


def _logits(model: onnx.ModelProto, images: Float32s) -> Float32s:
    with OrtSession(model.SerializeToString(), threads=1) as session:
        return session.run(images)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mobilenet_v2", "resnext50"])
@pytest.mark.parametrize("pad", [False, True])
def test_answers_stay(float_graph: Graphs, family: str, pad: bool) -> None:
    model = float_graph(family)
    padded = [layer.name for layer in layers(model) if layer.group > 1][:3] if pad else []
    centred = centre(model, _ranges(model), padded=padded)
    onnx.checker.check_model(centred.model)
    # Stronger than what the ranges were measured on: exact there too.
    images = 3 * _images(model)
    assert sqnr_db(_logits(model, images), _logits(centred.model, images)) > 95
    assert len([n for n in centred.model.graph.node if n.op_type == "Pad"]) == len(padded)
    assert centred.centres
    for tensor in centred.centres:
        assert centred.ranges[tensor].low == pytest.approx(-centred.ranges[tensor].high, rel=2e-3)


def test_the_grid_becomes_twice_as_fine(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    ranges = _ranges(model)
    centred = centre(model, ranges)
    for tensor in centred.centres:
        scale = symmetric_scale(centred.ranges[tensor])
        assert scale / symmetric_scale(ranges[tensor]) == pytest.approx(0.5, rel=1e-3)
        # what was 0 before lies on the grid, in half as in float
        assert scale == np.float16(scale)
        assert -127 * float(scale) == pytest.approx(-centred.centres[tensor], rel=1e-7)


def test_a_tensor_read_with_padding_is_left_alone(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    centred = centre(model, _ranges(model))
    padded = {layer.input for layer in layers(model) if any(layer.pads)}
    assert not padded & set(centred.centres)


def test_the_centred_graph_is_quantized_by_the_same_rules(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    name = next(layer.name for layer in layers(model) if layer.depthwise)
    centred = centre(model, _ranges(model), padded=[name])
    before, after = plan(model), plan(centred.model)
    assert set(after.weights) == set(before.weights)
    assert len(after.activations) == len(before.activations)
