"""The layer that errs is found, alone and in the chain, where errors were put in by hand."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from resdeploy.calibration.layerwise import layer_errors
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.metrics.layer_error import culprit

_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[batch, 3, 8, 8] input) => (float[batch, 4] logits)
{
    [first] c1 = Conv <pads = [1, 1, 1, 1]> (input, w1)
    r1 = Relu (c1)
    [second] c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
    [sum] a = Add (c2, r1)
    r2 = Relu (a)
    [third] c3 = Conv <pads = [1, 1, 1, 1]> (r2, w3)
    p = GlobalAveragePool (c3)
    f = Flatten (p)
    [head] logits = Gemm <transB = 1> (f, w4)
}
"""
_SHAPES = {"w1": (6, 3, 3, 3), "w2": (6, 6, 3, 3), "w3": (6, 6, 3, 3), "w4": (4, 6)}


@pytest.fixture
def inputs() -> Float32s:
    return np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)


def _write(path: Path, noise: dict[str, float], gain: dict[str, float]) -> Path:
    """The chain with weights changed by a relative noise or a gain."""
    model = onnx.parser.parse_model(_GRAPH)
    weights, errors = np.random.default_rng(2), np.random.default_rng(3)
    for name, shape in _SHAPES.items():
        values = weights.normal(0, 0.4, shape)
        values = gain.get(name, 1.0) * (
            values + noise.get(name, 0.0) * errors.normal(0, 0.4, shape)
        )
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("weight", "layer"), [("w1", "first"), ("w2", "second"), ("w3", "third"), ("w4", "head")]
)
def test_a_gain_of_four_is_found_where_it_was_put(
    tmp_path: Path, inputs: Float32s, weight: str, layer: str
) -> None:
    exact = _write(tmp_path / "float.onnx", {}, {})
    wrong = _write(tmp_path / "int8.onnx", dict.fromkeys(_SHAPES, 0.01), {weight: 4.0})
    errors = layer_errors(exact, wrong, inputs)
    assert [error.name for error in errors] == ["first", "second", "sum", "third", "head"]
    worst = culprit(errors)
    assert worst.name == layer and worst.share > 0.99
    assert worst.own_db == pytest.approx(-20 * np.log10(3), abs=0.2)  # y = 4z: noise (3z)²
    assert sum(error.share for error in errors) == pytest.approx(1)


def test_own_errors_do_not_pass_on_and_whole_errors_do(tmp_path: Path, inputs: Float32s) -> None:
    exact = _write(tmp_path / "float.onnx", {}, {})
    wrong = _write(tmp_path / "int8.onnx", {"w1": 0.1}, {})
    first, second, added, third, head = layer_errors(exact, wrong, inputs)
    assert first.own_db == first.whole_db == pytest.approx(20, abs=2)
    for later in (second, added, third, head):
        assert later.own_db > 100 and later.share == pytest.approx(0, abs=1e-6)
        assert later.whole_db < 30


def test_channels_scaled_on_purpose_are_excused(tmp_path: Path, inputs: Float32s) -> None:
    # c3's channels are scaled and the head undoes it, as equalization does
    exact = _write(tmp_path / "float.onnx", {}, {})
    scale = np.array([0.1, 0.5, 1, 2, 10, 30], np.float32)
    for gain, blamed in ((1.0, {"first", "second", "sum"}), (4.0, {"second"})):
        wrong = onnx.load(_write(tmp_path / "w.onnx", dict.fromkeys(_SHAPES, 0.01), {"w2": gain}))
        for tensor in wrong.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if tensor.name == "w3":
                tensor.CopyFrom(numpy_helper.from_array(values * scale[:, None, None, None], "w3"))
            if tensor.name == "w4":
                tensor.CopyFrom(numpy_helper.from_array(values / scale, "w4"))
        onnx.save(wrong, tmp_path / "int8.onnx")
        errors = layer_errors(exact, tmp_path / "int8.onnx", inputs)
        assert culprit(errors).name in blamed
        if gain == 1:
            assert [error.name for error in errors if error.excused] == ["third", "head"]


def test_a_centred_layer_is_measured_with_its_middle_put_back(
    tmp_path: Path, inputs: Float32s
) -> None:
    exact = _write(tmp_path / "float.onnx", {}, {})
    wrong = onnx.load(_write(tmp_path / "w.onnx", dict.fromkeys(_SHAPES, 0.01), {}))
    middle = np.array(-1.5, np.float32)
    third = next(node for node in wrong.graph.node if node.name == "third")
    third.attribute[0].ints[:] = [0, 0, 0, 0]  # so that all it reads is centred
    original = onnx.load(exact)
    original.graph.node[5].attribute[0].ints[:] = [0, 0, 0, 0]
    onnx.save(original, exact)
    weight = next(t for t in wrong.graph.initializer if t.name == "w3")
    undone = 1.5 * numpy_helper.to_array(weight).sum(axis=(1, 2, 3))
    for name, value in (("low", middle), ("b3", undone)):
        wrong.graph.initializer.append(numpy_helper.from_array(value, name))
    activation = next(node for node in wrong.graph.node if node.output[0] == "r2")
    activation.op_type = "Clip"
    activation.input.append("low")
    third.input.append("b3")
    added = next(node for node in wrong.graph.node if node.name == "sum")
    added.output[0] = "plain"
    shift = onnx.helper.make_node("Sub", ["plain", "c"], ["a"], "shift")
    wrong.graph.initializer.append(numpy_helper.from_array(-middle, "c"))
    wrong.graph.node.insert(4, shift)
    onnx.save(wrong, tmp_path / "int8.onnx")
    errors = layer_errors(exact, tmp_path / "int8.onnx", inputs)
    assert all(error.own_db > 35 and not error.excused for error in errors)


def test_graphs_that_share_no_layer_are_refused(tmp_path: Path, inputs: Float32s) -> None:
    exact = _write(tmp_path / "float.onnx", {}, {})
    model = onnx.load(exact)
    for node in model.graph.node:
        node.output[0] = f"other_{node.output[0]}"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(GraphError, match="has no layer of"):
        layer_errors(exact, tmp_path / "other.onnx", inputs)
