"""What a bundle, an ONNX file and an engine are told to be, as plain JSON."""

import json
import shutil
from pathlib import Path

import onnx
import onnx.parser
import pytest

from resdeploy.deploy.cli.inspection.describe import describe
from resdeploy.deploy.errors import BundleError, CheckpointError, EngineError, InputError


def test_a_bundle_and_whether_its_files_are_intact(flower_bundle: Path, tmp_path: Path) -> None:
    found = describe(flower_bundle)
    assert next(iter(found)) == "kind" and json.loads(json.dumps(found)) == found
    assert (found["kind"], found["architecture"], found["classes"]) == ("bundle", "tiny", 5)
    assert found["input"] == "input float32 (batch, 3, 32, 32)"
    assert (found["arch"], found["settings"]) == (None, {})
    assert found["variants"]["fp32"]["state"] == "intact"
    bundle = Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))
    (bundle / "fp32.onnx").write_bytes(b"altered")
    assert "altered since it was written" in describe(bundle)["variants"]["fp32"]["state"]


def test_a_graph_of_ours(flower_bundle: Path) -> None:
    found = describe(flower_bundle / "fp32.onnx")
    assert (found["kind"], found["variant"]) == ("ONNX graph", "fp32")
    assert found["input"] == "input float32 (batch, 3, 32, 32)"
    assert found["labels"][0] == "daisy"
    operators = {"Conv": 2, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 2}
    assert found["operators"] == operators
    assert found["opset"] == 17 and found["inputs"] == ["input (batch, 3, 32, 32)"]


def test_a_graph_of_somebody_else(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        other (float[1, 4] x) => (float[1, 4] y) <float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }
        """
    )
    onnx.save(model, tmp_path / "other.onnx")
    found = describe(tmp_path / "other.onnx")
    assert (found["operators"], found["opset"], found["parameters"]) == ({"Mul": 1}, 13, 4)
    assert found["inputs"] == ["x (1, 4)"]
    assert "another tool's ONNX file" in found["resdeploy"]


def test_what_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth: no such file or folder"):
        describe(tmp_path / "absent.pth")
    with pytest.raises(BundleError, match=r"no manifest\.json in it"):
        describe(tmp_path)
    (tmp_path / "x.engine").write_text("plan")
    with pytest.raises(EngineError, match=r"no x\.json beside it"):
        describe(tmp_path / "x.engine")
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(CheckpointError, match=r"text\.pth"):
        describe(tmp_path / "text.pth")
