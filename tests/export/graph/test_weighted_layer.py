"""A convolution or linear layer is a matrix: read, changed, written, and proven on patches."""

import numpy as np
import onnx_ir as ir
import pytest

from resdeploy.deploy.arrays import Float64s
from resdeploy.export.graph.weighted_layer import (
    fits_float32,
    has_padding,
    read_layer,
    relative_error,
    why_not_layer,
    write_layer,
)
from tests.builders import graph_of
from tests.export.conftest import Run

_RANDOM = np.random.default_rng(0)
_CONV = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 4, 2, 3] x) => (float[n, 6, 1, 1] y)
{{ y = Conv <group = {groups}> (x, {names}) }}
"""
_GEMM = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 5] x) => (float[n, 3] y)
{{ y = Gemm <{attributes}> (x, {names}) }}
"""


def _conv(groups: int, *, bias: bool = True) -> ir.Model:
    weights: dict[str, Float64s] = {"c.weight": _RANDOM.normal(size=(6, 4 // groups, 2, 3))}
    names = "c_weight"
    weights = {"c_weight": weights["c.weight"]}
    if bias:
        weights["c_bias"], names = _RANDOM.normal(size=6), "c_weight, c_bias"
    return ir.from_proto(graph_of(_CONV.format(groups=groups, names=names), weights))


def _gemm(attributes: str, shape: tuple[int, int]) -> ir.Model:
    text = _GEMM.format(attributes=attributes, names="w, b")
    return ir.from_proto(
        graph_of(text, {"w": _RANDOM.normal(size=shape), "b": _RANDOM.normal(size=3)})
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_is_its_matrix_times_the_patch(groups: int, bias: bool, run: Run) -> None:
    model = _conv(groups, bias=bias)
    layer = read_layer(model.graph[0])
    assert (layer.groups, layer.kernel, layer.rows.shape) == (groups, 6, (6, 24 // groups))
    image = _RANDOM.normal(size=(1, 4, 2, 3)).astype(np.float32)
    got = run(ir.to_proto(model), image).reshape(groups, -1)
    for group, patch in enumerate(image.reshape(groups, -1, 1).astype(np.float64)):
        part = layer.answer(patch).reshape(groups, -1)[group]
        np.testing.assert_allclose(got[group], part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attributes", "shape"), [("transB = 1", (3, 5)), ("transB = 0", (5, 3))])
def test_a_linear_layer_is_its_matrix_whichever_way_it_is_stored(
    attributes: str, shape: tuple[int, int], run: Run
) -> None:
    model = _gemm(attributes, shape)
    layer = read_layer(model.graph[0])
    assert layer.rows.shape == (3, 5) and layer.transposed == (shape == (5, 3))
    rows = _RANDOM.normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_allclose(
        run(ir.to_proto(model), rows),
        layer.answer(rows.T.astype(np.float64)).T,
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_value_per_input_channel_lies_as_the_rows_do() -> None:
    layer = read_layer(_conv(2).graph[0])
    laid = layer.per_input(np.array([1.0, 2.0, 3.0, 4.0]))
    assert laid.shape == layer.rows.shape
    assert laid[0].tolist() == [1] * 6 + [2] * 6 and laid[5].tolist() == [3] * 6 + [4] * 6


@pytest.mark.parametrize("bias", [True, False])
def test_what_is_written_is_computed(bias: bool, run: Run) -> None:
    model = _conv(1, bias=bias)
    (node,) = model.graph
    layer = read_layer(node)
    scale = np.arange(1.0, 7.0)
    image = _RANDOM.normal(size=(2, 4, 2, 3)).astype(np.float32)
    before = run(ir.to_proto(model), image)
    stored = write_layer(
        model.graph, node, layer, layer.scaled_outputs(scale), scale * layer.bias + 1
    )
    assert stored is not None and stored[0].dtype == np.float32
    after = run(ir.to_proto(model), image)
    np.testing.assert_allclose(after, before * scale[:, None, None] + 1, rtol=1e-4, atol=1e-4)
    error = relative_error(stored, lambda p: scale[:, None] * layer.answer(p) + 1, 24)
    assert 0 < error < 1e-6
    assert relative_error(stored, lambda p: layer.answer(p), 24) > 0.1


def test_weights_beyond_float32_are_not_written() -> None:
    model = _conv(1)
    (node,) = model.graph
    layer = read_layer(node)
    assert not fits_float32(np.array([1e39])) and fits_float32(np.array([3e38, -1.0]))
    assert write_layer(model.graph, node, layer, layer.rows * 1e39, layer.bias) is None
    np.testing.assert_array_equal(read_layer(node).rows, layer.rows)


@pytest.mark.parametrize(
    ("attributes", "names", "reason"),
    [
        ("transB = 1", "w, b", None),
        ("transB = 1, alpha = 2.0", "w, b", "scales or transposes what it reads"),
        ("transB = 1", "x, b", "weight is not a constant"),
    ],
)
def test_a_layer_that_cannot_take_a_norm_up_says_why(
    attributes: str, names: str, reason: str | None
) -> None:
    text = _GEMM.format(attributes=attributes, names=names)
    weights = {"w": _RANDOM.normal(size=(3, 5)), "b": _RANDOM.normal(size=3)}
    found = why_not_layer(ir.from_proto(graph_of(text, weights)).graph[0])
    assert found is None if reason is None else reason in str(found)


def test_other_nodes_and_shared_weights_say_why() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 4, 2, 3] x) => (float[n, 6, 1, 1] y, float[n, 6, 1, 1] z)
    { r = Relu (x)
      y = Conv (r, w)
      z = Conv (x, w) }
    """
    relu, conv, _ = ir.from_proto(graph_of(text, {"w": _RANDOM.normal(size=(6, 4, 2, 3))})).graph
    assert why_not_layer(relu) == "follows Relu, not a convolution"
    assert why_not_layer(conv) == "the weight w is shared with another node"


@pytest.mark.parametrize(
    ("attributes", "padded"),
    [("", False), ("pads = [0, 0, 0, 0]", False), ("pads = [0, 1, 0, 0]", True),
     ('auto_pad = "SAME_UPPER"', True), ('auto_pad = "VALID"', False)],
)  # fmt: skip
def test_padding_is_any_zero_beyond_the_edge(attributes: str, padded: bool) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 4, 4, 4] x) => (float[n, 6, h, k] y) {{ y = Conv <{attributes}> (x, w) }}
    """
    weights = {"w": _RANDOM.normal(size=(6, 4, 2, 3))}
    node = ir.from_proto(graph_of(text.replace("<>", ""), weights)).graph[0]
    assert has_padding(node) == padded
