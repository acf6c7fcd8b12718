"""Graph files: one file, the same bytes, and a plain word for each broken one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph.onnx_file import (
    check_graph,
    load_graph,
    operators,
    opset,
    parameters,
    save_graph,
)


@pytest.fixture
def model() -> onnx.ModelProto:
    graph = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "agraph (float[batch, 3, 4, 4] input) => (float[batch, 2, 4, 4] logits)"
        "{ c = Conv(input, weight) logits = Relu(c) }"
    )
    weight = np.ones((2, 3, 1, 1), np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    return graph


def test_describes(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(9, np.int64), "shape"))
    assert operators(model) == {"Conv": 1, "Relu": 1}
    assert parameters(model) == 6
    assert opset(model) == 17


def test_written_and_read_back(model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.helper.set_model_props(model, {"b": "2", "a": "1"})
    for name in ("one.onnx", "two.onnx"):
        save_graph(model, tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert load_graph(tmp_path / "one.onnx") == model


@pytest.mark.parametrize("content", [b"", b"hello, this is a text file", b"\x08\x08\x3a\xff\xff"])
def test_a_file_that_is_no_graph(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"x\.onnx") as caught:
        load_graph(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString()[:-20])
    with pytest.raises(GraphError, match="not an ONNX file or is cut off"):
        load_graph(path)


def test_a_missing_file_and_an_unwritable_place(model: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"cannot read graph .* No such file"):
        load_graph(tmp_path / "none.onnx")
    with pytest.raises(GraphError, match=r"cannot write graph .* No such file"):
        save_graph(model, tmp_path / "none" / "x.onnx")


def test_weights_outside_the_file_are_refused(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(GraphError, match="weight weight is kept outside the graph file"):
        check_graph(model)


def test_an_invalid_graph_is_not_written(model: onnx.ModelProto, tmp_path: Path) -> None:
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(GraphError, match="graph is not valid ONNX"):
        save_graph(model, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
