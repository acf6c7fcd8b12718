"""`verify` of a backbone, with graphs in ONNX Runtime whose maps are known."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import REFERENCE
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.bundle.reference import FeatureReference
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.features.verify import refuse_about_classes
from resdeploy.deploy.verification.verify import verify
from tests.builders import graph_of, write_bundle
from tests.fakes import FEATURES, FakeBackbone

# what `FakeBackbone` does, as convolutions of one pixel
_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
backbone (float[batch, 3, 8, 8] input) => (float[batch, 3, 4, 4] C2, float[batch, 2, 2, 2] C3)
{
    C2 = Conv <strides = [2, 2]> (input, w2)
    C3 = Conv <strides = [2, 2]> (C2, w3)
}
"""
_INPUTS = np.random.default_rng(0).random((12, 3, 8, 8), np.float32)


def _backbone(gain: float = 1.0) -> onnx.ModelProto:
    eye: Float32s = np.eye(3, dtype=np.float32)[:, :, None, None]
    return graph_of(_GRAPH, {"w2": eye, "w3": gain * eye[:2]})


def _bundle(path: Path, graphs: Mapping[Variant, onnx.ModelProto]) -> Path:
    recorded = FeatureReference(_INPUTS, FakeBackbone().run_all(_INPUTS))
    return write_bundle(path, graphs, named("half", 8), features=FEATURES, reference=recorded)


def test_the_recorded_maps_are_reached(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "b", {"fp32": _backbone(), "int8": _backbone(1.1)})
    report = verify(bundle)
    assert report.verdict == "pass"
    assert "feature maps for the 12 inputs recorded in reference.npz" in report.reference
    checks = [gate for gate in report.gates if gate.name == "features"]
    assert [gate.variant for gate in checks] == ["fp32", "fp32", "int8", "int8"]
    figures = report.to_json()["variants"]["int8"]["features"]
    assert figures["C3"]["sqnr_db"] == pytest.approx(20, abs=0.01)
    assert figures["C2"]["max_abs"] == 0


def test_other_maps_than_pytorchs_fail_and_are_named(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "b", {"fp32": _backbone(1.1)})
    report = verify(bundle)
    assert report.verdict == "fail"
    (failed,) = (gate for gate in report.gates if gate.verdict == "fail")
    assert failed.sentence.startswith("C3 is 20.0 dB")
    assert "C3 is 20.0 dB" in report.reason


def test_images_are_compared_with_fp32_where_there_is_no_pytorch(
    tmp_path: Path, colours: Path
) -> None:
    bundle = _bundle(tmp_path / "b", {"fp32": _backbone(), "int8": _backbone(1.1)})
    report = verify(bundle, data=colours / "red")
    assert report.verdict == "pass" and "on 100 images" in report.reference
    fp32, int8 = report.variants
    assert fp32.is_reference and fp32.on_images is not None and fp32.on_images.numbers is None
    assert int8.on_images is not None
    assert int8.on_images.features["C3"].sqnr_db == pytest.approx(20, abs=0.01)


def test_without_images_and_without_recorded_maps_there_is_nothing_to_do(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "b", {"fp32": _backbone()})
    alone = tmp_path / "alone.onnx"
    shutil.copy(bundle / "fp32.onnx", alone)
    with pytest.raises(InputError, match=r"no reference\.npz beside it: give images with --data"):
        verify(alone)
    (bundle / REFERENCE).unlink()
    with pytest.raises(InputError, match="give images with --data"):
        verify(bundle)


def test_what_is_about_classes_is_refused(tmp_path: Path) -> None:
    model = open_model(_bundle(tmp_path / "b", {"fp32": _backbone()}))
    refuse_about_classes(model, Limits(), {"--baseline": None})
    for limits, further, option in (
        (Limits(max_drop=1), {}, "--max-drop"),
        (Limits(), {"--baseline": Path("b.json")}, "--baseline"),
    ):
        with pytest.raises(InputError, match=f"{option} is about classes, but .* is a backbone"):
            refuse_about_classes(model, limits, further)
