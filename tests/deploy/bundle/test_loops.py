"""A graph with a loop is refused before it runs, wherever the loop is."""

import random
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from resdeploy.deploy.bundle.loops import check_no_loops
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.errors import GraphError, ResdeployError
from tests.conftest import tiny_graph


def _branch(node: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph([node], "branch", [], [])


def _model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    model = tiny_graph()
    model.graph.node.extend(nodes)
    return model


_LOOP = helper.make_node("Loop", ["n", "go"], ["x"], body=_branch(helper.make_node("Relu", [], [])))


def test_loops_are_found(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    nested = helper.make_node("If", ["c"], ["y"], then_branch=_branch(_LOOP))
    function = _model()
    function.functions.append(
        helper.make_function("local", "F", ["a"], ["b"], [_LOOP], [helper.make_opsetid("", 17)])
    )
    scan = helper.make_node("Scan", ["a"], ["b"], body=_branch(_LOOP), num_scan_inputs=1)
    for model, name in (
        (_model(_LOOP), "Loop"),
        (_model(nested), "Loop"),
        (_model(scan), "Scan"),
        (function, "Loop"),
    ):
        path.write_bytes(model.SerializeToString())
        with pytest.raises(GraphError, match=rf"net\.onnx: has the operator {name}, which may"):
            check_no_loops(path)
        with pytest.raises(GraphError, match="which may run for ever"):
            open_model(path)


def test_weights_and_names_that_look_like_loops_are_none(tmp_path: Path) -> None:
    model = _model(helper.make_node("If", ["Loop"], ["Scan"], name="Loop"))
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], b"\x22\x04Loop\0\0", raw=True)
    model.graph.initializer.append(tensor)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    check_no_loops(path)


def test_damaged_files_are_left_to_the_runtime(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    whole = _model(_LOOP).SerializeToString()
    random_ = random.Random(0)
    for _ in range(300):
        content = bytearray(whole[: random_.randrange(len(whole))])
        if content:
            content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        path.write_bytes(content)
        try:
            check_no_loops(path)
        except ResdeployError as error:
            assert "\n" not in str(error)
