"""torch.ao's graph mode numbers its observers; the order of the graph says whose they are."""

import numpy as np
import onnx
import pytest

from resdeploy.export.checkpoint.numbered_ranges import numbered_ranges
from resdeploy.export.checkpoint.weights.trained_ranges import TrainedRange

_GRAPH = onnx.parser.parse_model(
    """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[n,3,8,8] input) => (float[n,4] logits)
    <float[4,3,1,1] w, float[4,4,1,1] v, float[4,4] u, float zero = {0}, float six = {6}>
    {
        a = Conv (input, w)
        b = Relu (a)
        c = Conv (b, v)
        d = Add (c, b)
        e = Clip (d, zero, six)
        f = GlobalAveragePool (e)
        g = Flatten (f)
        logits = Gemm (g, u)
    }
    """
)


def ranges(lows: list[float]) -> dict[str, TrainedRange]:
    return {
        f"activation_post_process_{number}": TrainedRange(
            np.array([low], np.float32), np.array([1.0], np.float32)
        )
        for number, low in enumerate(lows)
    }


def test_the_order_of_execution_tells() -> None:
    found = numbered_ranges(_GRAPH, ranges([-1, 0, -1, 0, 0, 0, -1]))
    assert list(found.values()) == ["input", "b", "c", "e", "f", "g", "logits"]


def test_a_relu6_may_have_an_observer_of_its_own() -> None:
    found = numbered_ranges(_GRAPH, ranges([-1, 0, -1, -1, 0, 0, 0, -1]))
    assert list(found.values()) == ["input", "b", "c", "d", "e", "f", "g", "logits"]


@pytest.mark.parametrize(
    "lows", [[], [-1, 0, -1], [-1, -1, -1, 0, 0, 0, -1], [-1, 0, -1, -0.5, 0, 0, -1]]
)
def test_another_count_or_a_relu_below_zero_places_nothing(lows: list[float]) -> None:
    assert numbered_ranges(_GRAPH, ranges(lows)) == {}


def test_names_that_are_no_numbers_are_left_alone() -> None:
    one = TrainedRange(np.array([0], np.float32), np.array([1], np.float32))
    assert numbered_ranges(_GRAPH, {"conv1.output": one, "activation_post_process_x": one}) == {}
