"""Centring keeps every answer, padding included, and makes ranges symmetric."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import pytest

from resdeploy.calibration.collect import collect
from resdeploy.calibration.high_bias import centre
from resdeploy.calibration.layers import layers
from resdeploy.calibration.observers import Extremes
from resdeploy.calibration.plan import plan
from resdeploy.calibration.range_choice import min_max
from resdeploy.calibration.ranges import Range, symmetric_scale
from resdeploy.deploy.compare import sqnr_db
from resdeploy.deploy.ort import OrtSession

Graphs = Callable[[str], onnx.ModelProto]
Floats = npt.NDArray[np.float32]


def _pictures(model: onnx.ModelProto) -> Floats:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return np.random.default_rng(5).standard_normal((4, 3, size, size), np.float32)


def _ranges(model: onnx.ModelProto) -> dict[str, Range]:
    extremes = {tensor: Extremes() for tensor in plan(model).activations}
    collect(model, [_pictures(model)], {tensor: [e] for tensor, e in extremes.items()})
    return {tensor: min_max(e) for tensor, e in extremes.items()}


def _logits(model: onnx.ModelProto, pictures: Floats) -> Floats:
    with OrtSession(model.SerializeToString(), threads=1) as session:
        return session.run(pictures)


@pytest.mark.parametrize("family", ["mobilenet_v2", "resnext50_32x4d"])
@pytest.mark.parametrize("pad", [False, True])
def test_answers_stay(float_graph: Graphs, family: str, pad: bool) -> None:
    model = float_graph(family)
    padded = [layer.name for layer in layers(model) if layer.group > 1][:3] if pad else []
    centred = centre(model, _ranges(model), padded=padded)
    onnx.checker.check_model(centred.model)
    # Stronger than what the ranges were measured on: exact there too.
    pictures = 3 * _pictures(model)
    assert sqnr_db(_logits(model, pictures), _logits(centred.model, pictures)) > 95
    assert len([n for n in centred.model.graph.node if n.op_type == "Pad"]) == len(padded)
    assert centred.taken
    for tensor in centred.taken:
        assert centred.ranges[tensor].low == pytest.approx(-centred.ranges[tensor].high)


def test_the_grid_becomes_twice_as_fine(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    ranges = _ranges(model)
    centred = centre(model, ranges)
    for tensor in centred.taken:
        ratio = symmetric_scale(centred.ranges[tensor]) / symmetric_scale(ranges[tensor])
        assert ratio == pytest.approx(0.5)


def test_a_tensor_read_with_padding_is_left_alone(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    centred = centre(model, _ranges(model))
    padded = {layer.input for layer in layers(model) if any(layer.pads)}
    assert not padded & set(centred.taken)


def test_the_centred_graph_is_quantized_by_the_same_rules(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    name = next(layer.name for layer in layers(model) if layer.depthwise)
    centred = centre(model, _ranges(model), padded=[name])
    before, after = plan(model), plan(centred.model)
    assert set(after.weights) == set(before.weights)
    assert len(after.activations) == len(before.activations)
