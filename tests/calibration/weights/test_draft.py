"""A draft's integers lie on the target's grid, and its graph is made from them."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from resdeploy.calibration.observe.gather import Observations, gather
from resdeploy.calibration.weights.draft import Draft, rounded
from resdeploy.calibration.weights.saturation import saturates
from resdeploy.deploy.targets import CPU, TARGETS, TENSORRT, Target

Graphs = Callable[[str], onnx.ModelProto]


@pytest.fixture(scope="module")
def observed(float_graph: Graphs) -> Observations:
    batch = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
    return gather(float_graph("cifar_resnet8"), lambda: [batch], 8, threads=1)


def _draft(observed: Observations, target: Target) -> Draft:
    draft = Draft(observed.model, target, observed.ranges("minmax", target))
    return rounded(draft, observed.moments)


@pytest.mark.parametrize("target", TARGETS)
def test_integers_of_every_layer_that_is_quantized(observed: Observations, target: Target) -> None:
    draft = _draft(observed, target)
    assert set(draft.weights) == {layer.weight for layer in draft.layers}
    assert set(draft.biases) == {layer.name for layer in draft.layers}
    for layer in draft.layers:
        values = draft.weights[layer.weight].values
        assert np.abs(values.astype(int)).max() <= 127
        if target.saturates:
            assert not saturates(values, layer.group)


def test_given_integers_are_kept(observed: Observations) -> None:
    first = _draft(observed, TENSORRT)
    again = rounded(first, observed.moments, integers=first.weights)
    assert all(again.weights[name] is weight for name, weight in first.weights.items())


def test_nearest_rounding_leaves_biases_alone(observed: Observations) -> None:
    draft = Draft(observed.model, CPU, observed.ranges("minmax", CPU))
    assert rounded(draft, observed.moments, rounding="nearest").biases == {}
    assert rounded(draft, observed.moments, rounding="corrected").biases


def test_a_layer_left_float_keeps_its_weights(observed: Observations) -> None:
    draft = _draft(observed, TENSORRT)
    left = draft.layers[1]
    graph = draft.left_float([left.name]).graph()
    names = {tensor.name for tensor in graph.graph.initializer}
    assert left.weight in names
    assert f"{left.weight}_quantized" not in names
    assert f"{draft.layers[2].weight}_quantized" in names


def test_activations_alone_can_be_quantized(observed: Observations) -> None:
    draft = _draft(observed, TENSORRT)
    graph = draft.activations_graph()
    quantizers = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizers) == len(draft.plan.activations)
    stored = {tensor.name for tensor in graph.graph.initializer}
    assert {layer.weight for layer in draft.layers} <= stored
