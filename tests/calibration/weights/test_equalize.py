"""Equalization changes weights, never answers, and brings channels to like size."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.repair.run import logits
from resdeploy.calibration.weights.draft import Draft, rounded
from resdeploy.calibration.weights.equalize import equalize
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.metrics.logits import sqnr_db
from resdeploy.deploy.targets import TENSORRT
from tests.builders import TWO_LAYERS, channel_peaks, graph_of, logits_of, noise_for

Graphs = Callable[[str], onnx.ModelProto]

# Float32 arithmetic in another order.
_SAME_FUNCTION_DB = 100.0


def _unevenness(model: onnx.ModelProto, peaks: dict[str, Float32s]) -> float:
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
    images = noise_for(model)
    before = channel_peaks(model, images)
    equal = equalize(model, before)
    assert sqnr_db(logits_of(model, images), logits_of(equal, images)) > _SAME_FUNCTION_DB
    assert _unevenness(equal, channel_peaks(equal, images)) < _unevenness(model, before)


def test_a_stretched_channel_no_longer_spoils_its_tensor() -> None:
    random = np.random.default_rng(0)
    weights = {"w1": random.normal(size=(16, 3, 3, 3)), "w2": random.normal(size=(8, 16, 1, 1))}
    weights["w1"][0] *= 300
    weights["w2"][:, 0] /= 300
    model = graph_of(TWO_LAYERS, {**weights, "b1": np.zeros(16), "b2": np.zeros(8)})
    images = random.standard_normal((16, 3, 16, 16)).astype(np.float32)
    expected = logits_of(model, images)
    spoilt, repaired = (
        sqnr_db(expected, logits(_quantized(graph, images), "int8", [images], 1))
        for graph in (model, equalize(model, channel_peaks(model, images)))
    )
    assert spoilt < 15 and repaired > spoilt + 15


def _quantized(model: onnx.ModelProto, images: Float32s) -> bytes:
    found = gather(model, lambda: [images], len(images), threads=1)
    draft = Draft(model, TENSORRT, found.ranges("minmax", TENSORRT))
    return bytes(rounded(draft, found.moments).graph().SerializeToString())


def test_unseen_images_have_room_below_the_bound(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    images = noise_for(model)
    peaks = {tensor: peak / np.float32(4) for tensor, peak in channel_peaks(model, images).items()}
    equal = equalize(model, peaks)
    # Images four times as strong as those measured: what is lost is little.
    assert sqnr_db(logits_of(model, images), logits_of(equal, images)) > 20
