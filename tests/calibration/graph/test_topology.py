"""The wiring tells who makes and reads each tensor; foreign graphs are refused by their reason."""

import onnx
import onnx.parser
import pytest

from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.graph.topology import wire
from resdeploy.deploy.errors import GraphError

_TEXT = """
<ir_version: 8, opset_import: ["" : {opset}]>
net (float[N, 3, 8, 8] input) => (float[N, M, H, W] logits)
<float[3, 3, 1, 1] w = {{1,0,0, 0,1,0, 0,0,1}}, float[3] v = {{1, 1, 1}}> {{
  {body}
}}
"""


@pytest.mark.parametrize(
    ("opset", "body", "message"),
    [
        (11, "[a] logits = Conv(input, w)", "operator set 11"),
        (
            17,
            "[a] x = Conv(input, w)\n [b] logits = BatchNormalization(x, v, v, v, v)",
            "1 batch normalizations are not folded",
        ),
        (17, "[a] logits = Relu(input)", "no convolution"),
        (17, "[a] x = Conv(input, w)\n [a] logits = Relu(x)", "2 nodes are called 'a'"),
        (17, "x = Conv(input, w)\n [a] logits = Relu(x)", "1 nodes are called ''"),
    ],
)
def test_foreign_graphs_are_refused(opset: int, body: str, message: str) -> None:
    model = onnx.parser.parse_model(_TEXT.format(opset=opset, body=body))
    with pytest.raises(GraphError, match=message):
        plan(model)


@pytest.mark.parametrize(
    "body",
    [
        "[a] x = Conv(input, w)\n [b] n = {norm}\n [c] logits = Add(x, n)",
        "[a] x = Relu(input)\n [b] n = {norm}\n [c] logits = Conv(n, w)",
    ],
)
def test_a_batch_norm_that_cannot_be_folded_is_no_reason(body: str) -> None:
    """As in pre-activation ResNets and DenseNets; it computes in float."""
    body = body.format(norm="BatchNormalization(x, v, v, v, v)")
    placed = plan(onnx.parser.parse_model(_TEXT.format(opset=17, body=body)))
    assert len(placed.weights) == 1 and "n" not in placed.weights


def test_quantized_graph_is_refused() -> None:
    body = "[a] q = QuantizeLinear(v, v)\n [b] logits = Conv(input, w)"
    with pytest.raises(GraphError, match="quantized already"):
        plan(onnx.parser.parse_model(_TEXT.format(opset=17, body=body)))


def test_half_graph_is_refused() -> None:
    text = _TEXT.format(opset=17, body="[a] logits = Conv(input, w)")
    with pytest.raises(GraphError, match="is float16 with 4 axes"):
        plan(onnx.parser.parse_model(text.replace("float[", "float16[")))


def test_wiring() -> None:
    body = "[a] x = Conv(input, w)\n [b] y = Relu(x)\n [c] logits = Add(x, y)"
    wiring = wire(onnx.parser.parse_model(_TEXT.format(opset=17, body=body)))
    assert [node.name for node in wiring.nodes] == ["a", "b", "c"]
    assert wiring.producer["y"].name == "b"
    assert [(node.name, index) for node, index in wiring.consumers["x"]] == [("b", 0), ("c", 0)]
    assert wiring.sole_consumer("x") is None
    only = wiring.sole_consumer("y")
    assert only is not None and only.name == "c"
    assert wiring.sole_consumer("logits") is None
    assert (wiring.inputs, wiring.outputs) == (("input",), ("logits",))
    assert set(wiring.constants) == {"w", "v"}


def test_a_constant_node_counts_as_a_constant() -> None:
    body = "[k] c = Constant <value = float {2}> ()\n [a] logits = Mul(input, c)"
    wiring = wire(onnx.parser.parse_model(_TEXT.format(opset=17, body=body)))
    assert "c" in wiring.constants
    assert [node.name for node in wiring.nodes] == ["a"]
