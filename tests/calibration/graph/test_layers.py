"""Layers are read from the graph, and constants change in copies alone."""

import numpy as np
import onnx

from resdeploy.calibration.graph.layers import (
    bias_of,
    constants,
    layers,
    with_biases,
    with_constants,
)
from tests import builders

_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[batch, 4, 8, 8] input) => (float[batch, 5] logits)
{
    [conv] c = Conv <group = 4, strides = [2, 1], pads = [1, 0, 1, 0]> (input, w1)
    [pool] g = GlobalAveragePool (c)
    [flatten] f = Flatten (g)
    [head] logits = Gemm <transB = 1> (f, w2, b2)
}
"""


def _model() -> onnx.ModelProto:
    weights = {"w1": np.ones((4, 1, 3, 1)), "w2": np.ones((5, 4)), "b2": np.arange(5.0)}
    return builders.graph_of(_TEXT, weights)


def test_a_convolution_and_a_gemm() -> None:
    conv, head = layers(_model())
    assert (conv.name, conv.input, conv.output, conv.bias) == ("conv", "input", "c", "")
    assert (conv.shape, conv.group, conv.strides) == ((4, 1, 3, 1), 4, (2, 1))
    assert (conv.pads, conv.columns, conv.depthwise) == ((1, 0, 1, 0), 3, True)
    assert (head.op_type, head.shape, head.bias) == ("Gemm", (5, 4, 1, 1), "b2")
    assert not head.depthwise
    assert head.rows(np.ones((5, 4))).shape == (1, 5, 4)


def test_the_widest_weights_stay_in_float32() -> None:
    _, head = layers(_model())
    assert head.rows(np.ones((5, 4), np.float32)).dtype == np.float64
    wide = np.broadcast_to(np.float32(1), (1 << 24, 4))  # takes no memory
    assert head.rows(wide).dtype == np.float32 and head.rows(wide).shape == (1, 1 << 24, 4)


def test_every_layer_gets_a_bias_in_a_copy() -> None:
    model = _model()
    complete = with_biases(model)
    assert [layer.bias for layer in layers(complete)] == ["conv.bias", "b2"]
    assert layers(model)[0].bias == ""
    np.testing.assert_array_equal(constants(complete)["conv.bias"], np.zeros(4))


def test_constants_are_replaced_or_added_in_a_copy() -> None:
    model = _model()
    changed = with_constants(model, {"b2": np.full(5, 7.0, np.float32), "new": np.ones(1, "f4")})
    assert constants(changed)["b2"].tolist() == [7.0] * 5
    assert constants(model)["b2"].tolist() == [0, 1, 2, 3, 4]
    assert "new" in constants(changed) and "new" not in constants(model)


def test_bias_is_zero_where_there_is_none() -> None:
    model = _model()
    conv, head = layers(model)
    assert bias_of(conv, constants(model)).tolist() == [0] * 4
    assert bias_of(head, constants(model)).tolist() == [0, 1, 2, 3, 4]
