"""A batch normalization is one scale and one shift per channel, or it is said why not."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph.affine import read_affine, why_not_affine, write_as_scale_and_shift
from tests.builders import graph_of
from tests.export.conftest import Run

_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 2, 3, 3] x) => (float[n, 2, 3, 3] y)
{{ y = BatchNormalization {attributes} (x, gamma, beta, mean, var) }}
"""
_VALUES = {"gamma": [2.0, -0.5], "beta": [0.5, 1.0], "mean": [1.0, -3.0], "var": [4.0, 0.25]}


def _norm(attributes: str = "<epsilon = 0.001>", **values: list[float]) -> onnx.ModelProto:
    weights = {name: np.array(row) for name, row in {**_VALUES, **values}.items()}
    return graph_of(_TEXT.format(attributes=attributes), weights)


def _inputs() -> Float32s:
    return np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(("attributes", "epsilon"), [("<epsilon = 0.001>", 1e-3), ("", 1e-5)])
def test_scale_and_shift_are_what_the_node_computes(
    attributes: str, epsilon: float, run: Run
) -> None:
    model = _norm(attributes)
    affine = read_affine(ir.from_proto(model).graph[0], "bn")
    np.testing.assert_allclose(
        affine.scale, [2 / (4 + epsilon) ** 0.5, -0.5 / (0.25 + epsilon) ** 0.5]
    )
    inputs = _inputs()
    expected = affine.scale[:, None, None] * inputs + affine.shift[:, None, None]
    np.testing.assert_allclose(run(model, inputs), expected, rtol=1e-5, atol=1e-6)
    rows = np.random.default_rng(1).normal(size=(2, 5))
    steps = affine.scale[:, None] * rows + affine.shift[:, None]
    np.testing.assert_allclose(affine.step_by_step(rows), steps, rtol=1e-12)


def test_a_variance_that_is_not_above_zero_is_named() -> None:
    node = ir.from_proto(_norm(var=[4.0, -1.0])).graph[0]
    with pytest.raises(
        GraphError, match=r"batch norm bn1 cannot .* is -0\.999 in channel 1 of var"
    ):
        read_affine(node, "bn1")


def test_written_as_scale_and_shift_it_computes_the_same(run: Run) -> None:
    model = ir.from_proto(_norm(var=[4e-9, 0.25]))
    node = model.graph[0]
    affine = read_affine(node, "bn")
    write_as_scale_and_shift(model.graph, node, affine)
    assert node.attributes["epsilon"].as_float() == 0
    after = read_affine(node, "bn")
    np.testing.assert_allclose(after.variance, 1)
    np.testing.assert_allclose(after.mean, 0)
    np.testing.assert_allclose(after.gamma, affine.scale, rtol=1e-6)
    inputs = _inputs()
    before = run(_norm(var=[4e-9, 0.25]), inputs)
    np.testing.assert_allclose(run(ir.to_proto(model), inputs), before, rtol=1e-5, atol=1e-5)


def test_a_scale_beyond_float32_leaves_the_node_as_it_was() -> None:
    model = ir.from_proto(_norm("<epsilon = 0.0>", gamma=[1e38, 1.0], var=[1e-20, 1.0]))
    node = model.graph[0]
    before = read_affine(node, "bn")
    write_as_scale_and_shift(model.graph, node, before)
    np.testing.assert_array_equal(read_affine(node, "bn").gamma, before.gamma)


def test_a_norm_that_is_no_fixed_affine_map_says_why() -> None:
    assert why_not_affine(ir.from_proto(_norm()).graph[0]) is None
    training = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 2, 3, 3] x) => (float[n, 2, 3, 3] y, float[2] m, float[2] v)
    { y, m, v = BatchNormalization <training_mode = 1> (x, gamma, beta, mean, var) }
    """
    weights = {name: np.array(row) for name, row in _VALUES.items()}
    node = ir.from_proto(graph_of(training, weights)).graph[0]
    assert "the batch's own statistics" in str(why_not_affine(node))
    fed = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 2, 3, 3] x, float[2] gamma) => (float[n, 2, 3, 3] y)
    { y = BatchNormalization (x, gamma, beta, mean, var) }
    """
    node = ir.from_proto(graph_of(fed, {k: v for k, v in weights.items() if k != "gamma"})).graph[0]
    assert why_not_affine(node) == "its parameters are not constants"
