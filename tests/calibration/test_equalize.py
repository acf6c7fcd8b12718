"""Equalization changes weights, never answers, and brings channels to like size."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest

from resdeploy.calibration.collect import collect
from resdeploy.calibration.draft import Draft, rounded
from resdeploy.calibration.equalize import ChannelPeaks, equalize
from resdeploy.calibration.layers import constants, layers
from resdeploy.calibration.sensitivity import logits
from resdeploy.calibration.statistics import gather
from resdeploy.deploy.compare import sqnr_db
from resdeploy.deploy.ort import OrtSession

Graphs = Callable[[str], onnx.ModelProto]
Floats = npt.NDArray[np.float32]

_TWO_LAYERS = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[batch, 3, 16, 16] input) => (float[batch, 8] logits)
{
    [conv1] c1 = Conv (input, w1, b1)
    [relu1] r1 = Relu (c1)
    [conv2] c2 = Conv (r1, w2, b2)
    [pool] g = GlobalAveragePool (c2)
    [flatten] logits = Flatten (g)
}
"""
# Float32 arithmetic in another order.
_SAME_FUNCTION_DB = 100.0


def _pictures(model: onnx.ModelProto) -> Floats:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return np.random.default_rng(5).standard_normal((8, 3, size, size), np.float32)


def _peaks(model: onnx.ModelProto, pictures: Floats) -> dict[str, Floats]:
    found = {layer.input: ChannelPeaks() for layer in layers(model)}
    collect(model, [pictures], {tensor: [peak] for tensor, peak in found.items()})
    return {tensor: peak.peaks for tensor, peak in found.items()}


def _logits(model: onnx.ModelProto, pictures: Floats) -> Floats:
    with OrtSession(model.SerializeToString(), threads=1) as session:
        return session.run(pictures)


def _unevenness(model: onnx.ModelProto, peaks: dict[str, Floats]) -> float:
    """Mean over tensors of log(largest channel / median channel)."""
    ratios = [
        np.log(peak.max() / np.median(peak[peak > 0]))
        for tensor, peak in peaks.items()
        if tensor != model.graph.input[0].name and (peak > 0).any()
    ]
    return float(np.mean(ratios))


@pytest.mark.parametrize("family", ["resnet18", "mobilenet_v2", "cifar_resnet8"])
def test_answers_stay_and_channels_come_to_like_size(float_graph: Graphs, family: str) -> None:
    model = float_graph(family)
    pictures = _pictures(model)
    before = _peaks(model, pictures)
    equal = equalize(model, before)
    assert sqnr_db(_logits(model, pictures), _logits(equal, pictures)) > _SAME_FUNCTION_DB
    assert _unevenness(equal, _peaks(equal, pictures)) < _unevenness(model, before)


def test_a_stretched_channel_no_longer_spoils_its_tensor() -> None:
    random = np.random.default_rng(0)
    weights = {"w1": random.normal(size=(16, 3, 3, 3)), "w2": random.normal(size=(8, 16, 1, 1))}
    weights["w1"][0] *= 300
    weights["w2"][:, 0] /= 300
    model = _two_layers({**weights, "b1": np.zeros(16), "b2": np.zeros(8)})
    pictures = random.standard_normal((16, 3, 16, 16)).astype(np.float32)
    expected = _logits(model, pictures)
    spoilt, repaired = (
        sqnr_db(expected, logits(_quantized(graph, pictures), "int8", [pictures], 1))
        for graph in (model, equalize(model, _peaks(model, pictures)))
    )
    assert spoilt < 15 and repaired > spoilt + 15


def _quantized(model: onnx.ModelProto, pictures: Floats) -> bytes:
    found = gather(model, lambda: [pictures], len(pictures), threads=1)
    draft = Draft(model, "tensorrt", found.ranges("minmax", "tensorrt"))
    return bytes(rounded(draft, found.moments).graph().SerializeToString())


def test_weights_quantized_per_tensor_come_to_like_size(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    for number, layer in enumerate(layers(model)):  # channels as uneven as trained ones are
        if layer.op_type == "Conv":
            _spread_rows(model, layer.weight, layer.bias, seed=number)
    pictures = _pictures(model)
    equal = equalize(model, _peaks(model, pictures), shared="weights", saturation="follow")
    stronger = 8 * pictures  # many more values than on the pictures measured reach the bound
    for shown in (pictures, stronger):
        assert sqnr_db(_logits(model, shown), _logits(equal, shown)) > _SAME_FUNCTION_DB - 10
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
    model = _two_layers(values)
    pictures = random.standard_normal((16, 3, 16, 16)).astype(np.float32)
    equal = equalize(model, _peaks(model, pictures), shared="weights", saturation="follow")
    assert sqnr_db(_logits(model, pictures), _logits(equal, pictures)) > _SAME_FUNCTION_DB
    found = constants(equal)
    written = np.abs(found["w1"]).max(axis=(1, 2, 3))
    read = np.abs(found["w2"]).max(axis=(0, 2, 3))
    assert max(written[:3]) <= max(written[3:]) * (1 + 1e-6)
    assert max(read[:3]) <= max(read[3:]) * (1 + 1e-6)


def test_layers_without_a_live_channel_are_left_alone() -> None:
    values = {"w1": np.zeros((16, 3, 3, 3)), "w2": np.ones((8, 16, 1, 1))}
    model = _two_layers({**values, "b1": np.ones(16), "b2": np.ones(8)})
    pictures = np.ones((8, 3, 16, 16), np.float32)
    equal = equalize(model, _peaks(model, pictures), shared="weights", saturation="follow")
    np.testing.assert_array_equal(constants(equal)["w2"], values["w2"])


def test_unseen_pictures_have_room_below_the_bound(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    pictures = _pictures(model)
    peaks = {tensor: peak / np.float32(4) for tensor, peak in _peaks(model, pictures).items()}
    equal = equalize(model, peaks)
    # Pictures four times as strong as those measured: what is lost is little.
    assert sqnr_db(_logits(model, pictures), _logits(equal, pictures)) > 20


def _two_layers(weights: dict[str, npt.NDArray[np.float64]]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(_TWO_LAYERS)
    for name, values in weights.items():
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    return model


def _spread_rows(model: onnx.ModelProto, weight: str, bias: str, seed: int) -> None:
    values = constants(model)
    factor = np.exp(np.random.default_rng(seed).normal(0, 1, len(values[weight])))
    for name in (weight, bias):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        scaled = values[name] * factor.reshape(-1, *[1] * (values[name].ndim - 1))
        tensor.CopyFrom(onnx.numpy_helper.from_array(scaled.astype(np.float32), name))


def _row_spread(model: onnx.ModelProto) -> float:
    """Mean over layers of log(largest row / median row), what one scale per tensor suffers from."""
    values = constants(model)
    peaks = [
        np.abs(values[layer.weight]).reshape(layer.shape[0], -1).max(axis=1)
        for layer in layers(model)
    ]
    return float(np.mean([np.log(peak.max() / np.median(peak)) for peak in peaks]))
