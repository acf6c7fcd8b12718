"""MatMul by a transposed constant is Gemm, where the input is a matrix; all else stays."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy.export.graph.linear import use_gemm
from tests.builders import graph_of
from tests.export.conftest import Run

_LINEAR = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 3] x) => (float[n, 2] y)
{ t = Transpose (w)
  y = MatMul (x, t) }
"""
_WEIGHT = np.random.default_rng(0).normal(size=(2, 3))


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_a_linear_layer_without_bias_becomes_gemm(batch: int, run: Run) -> None:
    proto = graph_of(_LINEAR, {"w": _WEIGHT})
    model = ir.from_proto(proto)
    assert use_gemm(model) == 1
    (node,) = model.graph
    assert node.op_type == "Gemm" and node.attributes["transB"].as_int() == 1
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    inputs = np.random.default_rng(batch).normal(size=(batch, 3)).astype(np.float32)
    np.testing.assert_allclose(run(after, inputs), run(proto, inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        # an input of three axes, which Gemm does not take
        (
            _LINEAR.replace("float[n, 3] x", "float[n, 4, 3] x").replace("[n, 2] y", "[n, 4, 2] y"),
            _WEIGHT,
        ),
        # not transposed
        (_LINEAR.replace("t = Transpose (w)", "t = Identity (w)"), _WEIGHT.T),
        # transposed so that nothing moves
        (_LINEAR.replace("Transpose (w)", "Transpose <perm = [0, 1]> (w)"), _WEIGHT.T),
    ],
)
def test_what_is_no_such_layer_stays(text: str, weight: np.ndarray) -> None:
    model = ir.from_proto(graph_of(text, {"w": weight}))
    assert use_gemm(model) == 0
    assert [node.op_type for node in model.graph][-1] == "MatMul"


def test_a_transpose_that_others_read_stays_for_them() -> None:
    text = _LINEAR.replace("(float[n, 2] y)", "(float[n, 2] y, float[3, 2] z)").replace(
        "y = MatMul (x, t) }", "y = MatMul (x, t)\n z = Relu (t) }"
    )
    model = ir.from_proto(graph_of(text, {"w": _WEIGHT}))
    assert use_gemm(model) == 1
    assert sorted(node.op_type for node in model.graph) == ["Gemm", "Relu", "Transpose"]
