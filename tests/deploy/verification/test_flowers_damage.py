"""The damage of a real MobileNetV2 that top-1 hardly shows, on all 367 photographs."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.calibration import quantize
from resdeploy.deploy.bundle.bundle import describe_file, read_bundle, write_manifest
from resdeploy.deploy.verification.verify import verify
from resdeploy.export import ExportOptions, export_checkpoint

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


@pytest.fixture(scope="module")
def floating(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flowers") / "flowers.bundle"
    options = ExportOptions(
        output=path,
        classes=shared_data / "flowers_class_indices.json",
        preprocess="imagenet",
        precisions=("fp32",),
    )
    return export_checkpoint(
        shared_data / "checkpoints" / "flowers_mobilenet_v2.pth", options
    ).bundle


@pytest.fixture(scope="module")
def sound(floating: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("sound") / "flowers.bundle"
    shutil.copytree(floating, bundle)
    quantize(bundle, shared_data / "flowers" / "calib", images=64, repair=False)
    return bundle


def test_six_activation_scales_times_six_fail_and_the_promise_names_the_cause(
    sound: Path, shared_data: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(sound, tmp_path / "damaged.bundle"))
    _scale_six(bundle / "int8.onnx")
    manifest = read_bundle(bundle).manifest
    entry = manifest.variants["int8"]
    described = describe_file(bundle / "int8.onnx", opset=entry.opset, made_from=entry.made_from)
    write_manifest(bundle, manifest.with_variant("int8", described))
    report = verify(bundle, data=shared_data / "flowers" / "val", precisions=["int8"])
    assert report.verdict == "fail" and report.reason.startswith("FAILED ")
    rows = {variant.name: variant.verdict for variant in report.variants}
    assert rows["int8"] == "fail" and rows["int8-cpu"] == "pass"
    promised = [g for g in report.gates if (g.variant, g.name) == ("int8", "as-promised")]
    assert any(g.verdict == "fail" for g in promised)
    assert any("the file is damaged or another one" in g.sentence for g in promised)


def test_photographs_of_everything_are_no_calibration_for_flowers(
    floating: Path, shared_data: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(floating, tmp_path / "flowers.bundle"))
    quantize(bundle, shared_data / "imagenet-sample", images=64, repair=False, force=True)
    report = verify(bundle, data=shared_data / "flowers" / "val", precisions=["int8"])
    failed = {f"{g.variant} {g.name}" for g in report.gates if g.verdict == "fail"}
    assert report.verdict == "fail" and "int8 calibration-images" in failed
    assert "was calibrated on images of another kind" in report.reason


def _scale_six(file: Path) -> None:
    """Six of the scales of quantized activations, drawn once, times six."""
    graph = onnx.load(file)
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    scales = sorted(
        node.input[1]
        for node in graph.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored
    )
    for name in np.random.default_rng(0).choice(sorted(set(scales)), 6, replace=False):
        values = 6 * onnx.numpy_helper.to_array(stored[name])
        stored[name].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(graph, file)
