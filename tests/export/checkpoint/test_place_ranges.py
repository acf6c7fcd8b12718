"""Where trained ranges go in a graph of one block, written as text."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.trained_ranges import TrainedRanges
from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.place_ranges import place_ranges, without_input
from resdeploy.export.checkpoint.read import Checkpoint
from resdeploy.export.checkpoint.weights.trained_ranges import TrainedRange
from tests.builders import graph_of

_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[batch, 3, 8, 8] input) => (float[batch, 4] logits)
{
    [stem] s = Conv (input, w1)
    [stem_relu] r = Relu (s)
    [block__conv1] c1 = Conv <pads = [1, 1, 1, 1]> (r, w2)
    [block__add] a = Add (c1, r)
    [block__relu] b = Relu (a)
    [pool] g = GlobalAveragePool (b)
    [flatten] f = Flatten (g)
    [head] logits = Gemm <transB = 1> (f, w3)
}
"""
_IN_GRAPH = {"stem.weight": "w1", "block.conv1.weight": "w2", "head.weight": "w3"}
_RANDOM = np.random.default_rng(0)
_WEIGHTS: dict[str, Float32s] = {
    "stem.weight": _RANDOM.standard_normal((4, 3, 1, 1), np.float32),
    "block.conv1.weight": _RANDOM.standard_normal((4, 4, 3, 3), np.float32),
    "head.weight": _RANDOM.standard_normal((4, 4), np.float32),
}
_FACTOR: Float32s = np.array([2, 0.5, 1, 3], np.float32)


def _graph(weights: dict[str, Float32s]) -> onnx.ModelProto:
    model = graph_of(_GRAPH, {_IN_GRAPH[name]: values for name, values in weights.items()})
    for node in model.graph.node:
        node.name = node.name.replace("__", ".")  # the text form has no dots in names
    return model


def _range(peak: Any) -> TrainedRange:
    high = np.asarray(peak, np.float32)
    return TrainedRange(-high, high)


def _placed(
    ranges: dict[str, TrainedRange], own: dict[str, Float32s] | None = None
) -> TrainedRanges:
    """What is placed in a graph whose stem took up a batch norm that scales it by `_FACTOR`."""
    folded = {**_WEIGHTS, "stem.weight": _FACTOR[:, None, None, None] * _WEIGHTS["stem.weight"]}
    tensors = {**_WEIGHTS, **(own or {})}
    checkpoint = Checkpoint(
        Path("qat.pth"), "zip", None, "", tensors, (), "0", trained_ranges=ranges
    )
    architecture = Architecture("own", "custom", "sidecar", 4, 4, 1, 8, "half", (), (), ())
    return place_ranges(_graph(folded), checkpoint, architecture)


def test_a_layer_reads_its_input_and_writes_behind_its_activation() -> None:
    found = _placed({"stem.input": _range(2), "block.conv1.input": _range(3)})
    assert found.activations == {"input": (-2, 2), "r": (-3, 3)} and not found.unplaced
    # of conv1 nothing was folded, so that its output is the one that was trained; the stem's is not
    found = _placed({"block.conv1.output": _range(5), "stem.output": _range(6)})
    assert found.activations == {"c1": (-5, 5)} and found.unplaced == ("stem.output",)


def test_of_several_readers_the_widest_range_is_taken() -> None:
    found = _placed({"block.conv1.input": _range(3), "block.residual": _range(4)})
    assert found.activations == {"r": (-4, 4)}


def test_a_sum_has_the_range_behind_its_activation() -> None:
    found = _placed({"block.add.output": _range(7), "quant.output": _range(1)})
    assert found.activations == {"b": (-7, 7), "input": (-1, 1)}


def test_folding_scales_a_weights_grid_with_its_channel() -> None:
    peak = np.abs(_WEIGHTS["stem.weight"]).max(axis=(1, 2, 3))
    for trained, expected in ((peak / 2, _FACTOR * peak / 2), (np.float32(0.5), _FACTOR * 0.5)):
        found = _placed({"stem.weight": _range(trained)})
        np.testing.assert_allclose(found.weights["w1"], expected, rtol=1e-6)


def test_a_weight_that_rounds_after_its_batch_norm_keeps_its_grid() -> None:
    peak = np.array([1, 2, 3, 4], np.float32)
    norm = {"stem.bn.weight": np.ones(4, np.float32)}
    found = _placed({"stem.weight": _range(peak)}, norm)
    np.testing.assert_array_equal(found.weights["w1"], peak)


@pytest.mark.parametrize("own", ["other", "scaled by rows"])
def test_a_weight_that_is_not_the_trained_one_is_left_out(own: str) -> None:
    other = _RANDOM.standard_normal((4, 3, 1, 1), np.float32)
    rows = _WEIGHTS["stem.weight"] * np.array([1, 2, 3], np.float32)[None, :, None, None]
    tensors = {"stem.weight": other if own == "other" else rows}
    found = _placed({"stem.weight": _range(1.0)}, tensors)
    assert not found.weights and found.unplaced == ("stem.weight",)


def test_what_has_no_place_is_named() -> None:
    found = _placed({"nowhere.input": _range(1), "stem.input": _range(np.ones(3, np.float32))})
    assert found.unplaced == ("nowhere.input", "stem.input") and not found.activations


def test_an_input_that_was_scaled_away_loses_its_range() -> None:
    model = _graph(_WEIGHTS)
    ranges = TrainedRanges({"input": (-1, 1), "r": (0, 2)}, {}, ("nowhere",))
    assert without_input(ranges, model) == TrainedRanges({"r": (0, 2)}, {}, ("nowhere",))
