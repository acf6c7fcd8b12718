"""Equalized weights compute the same, and rows come to like size."""

import numpy as np
import onnx
from weight_equalization import equalize_weights

from resdeploy.calibration.graph.layers import constants, layers
from resdeploy.deploy.metrics.logits import sqnr_db
from tests.builders import TWO_LAYERS, channel_peaks, graph_of, logits_of, noise_for

_BLOCK = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[batch, 3, 16, 16] input) => (float[batch, 8] logits)
<float zero = {0}, float six = {6}>
{
    [expand] c1 = Conv <pads = [1, 1, 1, 1]> (input, w1, b1)
    [relu6_1] r1 = Clip (c1, zero, six)
    [depthwise] c2 = Conv <group = 16, pads = [1, 1, 1, 1]> (r1, w2, b2)
    [relu6_2] r2 = Clip (c2, zero, six)
    [project] c3 = Conv (r2, w3, b3)
    [pool] g = GlobalAveragePool (c3)
    [flatten] logits = Flatten (g)
}
"""
_BLOCK_SHAPES = {"w1": (16, 3, 3, 3), "w2": (16, 1, 3, 3), "w3": (8, 16, 1, 1)}

# Float32 arithmetic in another order.
_SAME_FUNCTION_DB = 100.0


def test_weights_quantized_per_tensor_come_to_like_size() -> None:
    random = np.random.default_rng(0)
    weights = {}
    for number, shape in enumerate(_BLOCK_SHAPES.values(), 1):
        # channels as uneven as trained ones are
        factor = np.exp(random.normal(0, 1, (shape[0], 1, 1, 1)))
        weights[f"w{number}"] = random.normal(size=shape) * factor
        weights[f"b{number}"] = random.normal(size=shape[0])
    model = graph_of(_BLOCK, weights)
    images = noise_for(model)
    equal = equalize_weights(model, channel_peaks(model, images))
    stronger = 8 * images  # many more values than on the images measured reach the bound
    for shown in (images, stronger):
        assert sqnr_db(logits_of(model, shown), logits_of(equal, shown)) > _SAME_FUNCTION_DB - 10
    assert {node.op_type for node in equal.graph.node} >= {"Min", "Relu"}
    assert _row_spread(equal) < 0.7 * _row_spread(model)


def test_channels_that_nothing_writes_or_reads_do_not_decide_a_scale() -> None:
    random = np.random.default_rng(0)
    values = {"w1": random.normal(size=(16, 3, 3, 3)), "w2": random.normal(size=(8, 16, 1, 1))}
    values["b1"], values["b2"] = np.full(16, 0.1), np.zeros(8)
    for nothing, bias in ((0, -1.0), (1, 0.2)):  # never above 0; always the same
        values["w1"][nothing], values["b1"][nothing] = 0, bias
    values["w2"][:, 0], values["w2"][:, 1] = 1e4, 10
    values["w1"][2], values["w2"][:, 2] = 1e3, 0
    model = graph_of(TWO_LAYERS, values)
    images = random.standard_normal((16, 3, 16, 16)).astype(np.float32)
    equal = equalize_weights(model, channel_peaks(model, images))
    assert sqnr_db(logits_of(model, images), logits_of(equal, images)) > _SAME_FUNCTION_DB
    found = constants(equal)
    written = np.abs(found["w1"]).max(axis=(1, 2, 3))
    read = np.abs(found["w2"]).max(axis=(0, 2, 3))
    assert max(written[:3]) <= max(written[3:]) * (1 + 1e-6)
    assert max(read[:3]) <= max(read[3:]) * (1 + 1e-6)


def test_layers_without_a_live_channel_are_left_alone() -> None:
    values = {"w1": np.zeros((16, 3, 3, 3)), "w2": np.ones((8, 16, 1, 1))}
    model = graph_of(TWO_LAYERS, {**values, "b1": np.ones(16), "b2": np.ones(8)})
    images = np.ones((8, 3, 16, 16), np.float32)
    equal = equalize_weights(model, channel_peaks(model, images))
    np.testing.assert_array_equal(constants(equal)["w2"], values["w2"])


def _row_spread(model: onnx.ModelProto) -> float:
    """Mean over layers of log(largest row / median row), what one scale per tensor suffers from."""
    values = constants(model)
    peaks = [
        np.abs(values[layer.weight]).reshape(layer.shape[0], -1).max(axis=1)
        for layer in layers(model)
    ]
    return float(np.mean([np.log(peak.max() / np.median(peak)) for peak in peaks]))
