"""What the graph extracts of a tensor is what would be made of the whole tensor."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx
import onnx.parser

from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.observe.taps import Need, Tap, add_taps
from resdeploy.calibration.ranges.observers import Histogram
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.targets import CPU

_MODEL = onnx.parser.parse_model("""
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3, 64, 64] input) => (float[N, 3, 64, 64] logits)
<float[3, 3, 1, 1] w = {1,0,0, 0,1,0, 0,0,1}> {
  [conv] y = Conv(input, w)
  [relu] logits = Relu(y)
}
""")


class _Whole:
    needs: Literal["whole"] = "whole"

    def update(self, values: Float32s) -> None:
        assert values.ndim == 4


def test_only_tensors_that_are_never_negative_are_pooled_for_their_extremes() -> None:
    wanted: list[tuple[str, Need]] = [("y", "extremes"), ("logits", "extremes")]
    tapped, taps = add_taps(_MODEL, [*wanted, ("logits", "sample")])
    assert taps == [
        Tap("whole", "y"),
        Tap("extremes", "logits.high"),
        Tap("sample", "logits.sample"),
    ]
    assert {value.name for value in tapped.graph.output} == {tap.output for tap in taps}
    assert len(_MODEL.graph.node) == 2 and len(tapped.graph.node) == 4


def test_a_tensor_that_comes_whole_is_not_sampled_besides() -> None:
    tapped, taps = add_taps(_MODEL, [("y", "sample"), ("y", "extremes")])
    assert taps == [Tap("whole", "y"), Tap("whole", "y")]
    assert [value.name for value in tapped.graph.output] == ["y"]
    assert len(tapped.graph.node) == 2


def test_zero_stands_beside_the_pooled_maxima() -> None:
    highs = np.array([[[[3.0]], [[1.0]]]], np.float32)
    assert Tap("extremes", "high").assemble(highs).ravel().tolist() == [3, 1, 0]
    assert Tap("whole", "x").assemble(highs) is highs


def test_taps_extracted_in_the_graph_are_those_of_the_whole_tensor(
    float_graph: Callable[[str], onnx.ModelProto],
) -> None:
    """The same counts and extremes, whether the graph extracts the part or numpy does."""
    model = float_graph("mobilenet_v2")
    tensors = plan(model, target=CPU).activations
    batches = [np.random.default_rng(n).standard_normal((3, 3, 64, 64), np.float32) for n in (0, 1)]
    part = {tensor: Histogram() for tensor in tensors}
    whole = {tensor: Histogram() for tensor in tensors}
    collect(model, batches, {tensor: h.parts for tensor, h in part.items()})
    collect(model, batches, {tensor: (*h.parts, _Whole()) for tensor, h in whole.items()})
    for tensor in tensors:
        np.testing.assert_array_equal(part[tensor].counts, whole[tensor].counts)
        assert part[tensor].extremes.high == whole[tensor].extremes.high
        if tensor.endswith("clip_output"):
            assert 0 == part[tensor].extremes.low <= whole[tensor].extremes.low
        else:
            assert part[tensor].extremes.low == whole[tensor].extremes.low
            assert part[tensor].extremes.mean_low == whole[tensor].extremes.mean_low
