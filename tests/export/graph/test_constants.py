"""Constants are those that nobody can feed; new ones take a free name; nodes leave cleanly."""

import numpy as np
import onnx
import onnx_ir as ir

from resdeploy.export.graph.constants import (
    bypass,
    float64,
    is_constant,
    new_initializer,
    set_constant,
)
from tests.builders import graph_of
from tests.export.conftest import Run

_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 2] x, float[2] fed) => (float[n, 2] y)
{ a = Add (x, w)
  b = Mul (a, fed)
  y = Mul (b, v) }
"""


def _model() -> ir.Model:
    weights = {"w": np.array([1.0, 2.0]), "v": np.array([3.0, 5.0]), "fed": np.array([1.0, 1.0])}
    return ir.from_proto(graph_of(_TEXT, weights))


def test_an_initializer_that_can_be_fed_is_no_constant() -> None:
    add, mul, _ = _model().graph
    assert is_constant(add.inputs[1])
    assert not is_constant(mul.inputs[1])  # also an input: the stored value is a default only
    assert not is_constant(add.inputs[0]) and not is_constant(mul.inputs[0])
    assert not is_constant(None)


def test_a_constant_is_read_in_float64_and_replaced_under_its_name(run: Run) -> None:
    model = _model()
    value = model.graph[0].inputs[1]
    assert value is not None
    assert float64(value).dtype == np.float64 and float64(value).tolist() == [1, 2]
    set_constant(value, np.array([7, 8], np.float32))
    assert value.name == "w" and float64(value).tolist() == [7, 8]
    inputs = np.zeros((1, 2), np.float32)
    np.testing.assert_array_equal(run(ir.to_proto(model), inputs), [[21, 40]])


def test_a_new_constant_takes_a_free_name() -> None:
    graph = _model().graph
    names = [new_initializer(graph, name, np.zeros(1, np.float32)).name for name in "nwwa"]
    assert names == ["n", "w_folded", "w_folded_folded", "a_folded"]
    assert set(names) <= set(graph.initializers)


def test_a_bypassed_node_is_gone_with_what_only_it_read(run: Run) -> None:
    model = _model()
    last = model.graph[2]
    source = last.inputs[0]
    assert source is not None
    bypass(model.graph, last, source)
    assert [node.op_type for node in model.graph] == ["Add", "Mul"]
    assert "v" not in model.graph.initializers and "w" in model.graph.initializers
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    assert [output.name for output in proto.graph.output] == [
        "y"
    ]  # the graph's output keeps its name
    np.testing.assert_array_equal(run(proto, np.zeros((1, 2), np.float32)), [[1, 2]])
