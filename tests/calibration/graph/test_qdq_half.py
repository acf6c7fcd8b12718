"""Scales survive in half, and what half cannot hold is refused."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.graph.qdq import insert_qdq
from resdeploy.calibration.graph.qdq_half import half_scale
from resdeploy.calibration.ranges.ranges import Range
from resdeploy.deploy.errors import GraphError
from tests import builders

_TINY = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 4, 4] input) => (float[N, 2, 4, 4] logits)
{
  [conv] y = Conv(input, w, b)
  [relu] logits = Relu(y)
}
"""


def _half(bias: float, reach: float) -> onnx.ModelProto:
    weights = {"w": np.eye(2).reshape(2, 2, 1, 1), "b": np.array([bias, 0.0])}
    model = builders.graph_of(_TINY, weights)
    return insert_qdq(model, plan(model), {"input": Range(0, reach)}, {}, {}, half=True)


def test_normal_scales_become_the_nearest_half() -> None:
    scales = np.array([0.1, 1.0, 3e-4], np.float32)
    np.testing.assert_array_equal(half_scale(scales), scales.astype(np.float16))


def test_tiny_scales_stay_positive_and_are_not_rounded_down() -> None:
    scales = np.array([1e-30, 2.0**-24, 2.4e-7, 5e-6], np.float32)
    halved = half_scale(scales).astype(np.float64)
    assert (halved >= scales).all() and (halved > 0).all()
    assert halved[0] == 2.0**-24


def test_everything_but_integers_and_the_interface_is_half() -> None:
    graph = _half(1.0, 1.0).graph
    kinds = {t.name: numpy_helper.to_array(t).dtype for t in graph.initializer}
    assert set(kinds.values()) == {np.dtype(np.float16), np.dtype(np.int8)}
    float32 = onnx.TensorProto.FLOAT
    assert graph.input[0].type.tensor_type.elem_type == float32
    assert graph.output[0].type.tensor_type.elem_type == float32
    assert (graph.node[0].op_type, graph.node[-1].op_type) == ("Cast", "Cast")


@pytest.mark.parametrize(("bias", "reach", "name"), [(1e5, 1.0, "'b'"), (0.0, 1e6, "input_scale")])
def test_what_half_cannot_hold_is_refused(bias: float, reach: float, name: str) -> None:
    with pytest.raises(GraphError, match=f"{name}.* half ends at 65504"):
        _half(bias, reach)
