"""Damage to a real network that top-1 hardly shows: each kind fails, and its cause is named."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.calibration import quantize
from resdeploy.deploy.bundle.bundle import describe_file, read_bundle, write_manifest
from resdeploy.deploy.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from resdeploy.deploy.verification import candidates
from resdeploy.deploy.verification.reports.report import VerifyReport
from resdeploy.deploy.verification.verify import verify
from resdeploy.export import ExportOptions, export_checkpoint
from tests.fakes import FakeSession

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

Damage = Callable[[onnx.ModelProto], None]

_IMAGES = 300


@pytest.fixture(scope="module")
def photographs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 of the validation images, as many of each class."""
    folder = tmp_path_factory.mktemp("cifar10")
    for label in sorted((shared_data / "cifar10" / "val").iterdir()):
        (folder / label.name).mkdir()
        for path in sorted(label.iterdir())[: _IMAGES // 10]:
            (folder / label.name / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def sound(shared_data: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-20 in FP32 and INT8, exported and quantized with images at hand."""
    path = tmp_path_factory.mktemp("sound") / "resnet20.bundle"
    options = ExportOptions(
        output=path,
        classes=shared_data / "cifar10_class_indices.json",
        data=photographs,
        precisions=("fp32",),
    )
    export_checkpoint(shared_data / "checkpoints" / "cifar10_resnet20.th", options)
    quantize(path, shared_data / "cifar10" / "calib", images=96, data=photographs)
    return path


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Callable[[Damage], Path]:
    """A function: what to do to int8.onnx -> a copy of the bundle that holds the result."""

    def damage(change: Damage) -> Path:
        bundle = Path(shutil.copytree(sound, tmp_path / "damaged.bundle"))
        file = bundle / "int8.onnx"
        graph = onnx.load(file)
        change(graph)
        onnx.save(graph, file)
        manifest = read_bundle(bundle).manifest
        entry = manifest.variants["int8"]
        described = describe_file(file, opset=entry.opset, made_from=entry.made_from)
        write_manifest(bundle, manifest.with_variant("int8", described))
        return bundle

    return damage


def _scaled(layers: int, factor: float) -> Damage:
    """Multiply the scales of so many quantized activations in the middle of the graph."""

    def change(graph: onnx.ModelProto) -> None:
        stored = {tensor.name: tensor for tensor in graph.graph.initializer}
        scales = [
            node.input[1]
            for node in graph.graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] not in stored
        ]
        middle = len(scales) // 2
        for name in scales[middle : middle + layers]:
            values = factor * onnx.numpy_helper.to_array(stored[name])
            stored[name].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))

    return change


def _without_head_row(graph: onnx.ModelProto) -> None:
    """Zero what the head knows of class 3."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    (head,) = (node for node in graph.graph.node if node.op_type == "Gemm")
    producers = {name: node for node in graph.graph.node for name in node.output}
    name = head.input[1]
    while name not in stored:
        name = producers[name].input[0]
    values = onnx.numpy_helper.to_array(stored[name]).copy()
    row = (3,) if values.shape[0] == 10 else (slice(None), 3)
    values[row] = 0
    stored[name].CopyFrom(onnx.numpy_helper.from_array(values, name))


def _failed(report: VerifyReport) -> dict[str, str]:
    assert report.verdict == "fail" and report.reason.startswith("FAILED ")
    return {f"{g.variant} {g.name}": g.sentence for g in report.gates if g.verdict == "fail"}


def test_the_sound_bundle_passes(sound: Path, photographs: Path) -> None:
    report = verify(sound, data=photographs)
    assert report.verdict != "fail", report.reason
    assert {g.name for g in report.gates} >= {"as-promised", "max-drop", "max-class-drop"}


@pytest.mark.parametrize(("layers", "factor"), [(1, 4.0), (6, 6.0)])
def test_wrong_scales_break_the_promise_with_and_without_images(
    damaged: Callable[[Damage], Path], photographs: Path, layers: int, factor: float
) -> None:
    bundle = damaged(_scaled(layers, factor))
    recorded = _failed(verify(bundle, precisions=["int8"]))
    assert "the file is damaged or another one" in recorded["int8 as-promised"]
    assert "int8 as-promised" in _failed(verify(bundle, data=photographs, precisions=["int8"]))


def test_a_class_whose_head_row_is_gone_is_named(
    damaged: Callable[[Damage], Path], photographs: Path
) -> None:
    found = _failed(verify(damaged(_without_head_row), data=photographs, precisions=["int8"]))
    assert "class 'cat' lost" in found["int8 max-class-drop"]


def test_another_preprocessing_than_the_graphs_is_a_contradiction(
    sound: Path, photographs: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(sound, tmp_path / "swapped.bundle"))
    manifest = read_bundle(bundle).manifest
    other = replace(manifest.preprocess, mean=IMAGENET_STD, std=IMAGENET_MEAN)
    write_manifest(bundle, replace(manifest, preprocess=other))
    report = verify(bundle, data=photographs, precisions=["fp32"])
    assert "the preprocessing differs: mean is" in _failed(report)["fp32 consistency"]
    assert "manifest.json contradicts fp32.onnx" in report.reason


def test_permuted_labels_are_found_from_the_answers(
    sound: Path, photographs: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(sound, tmp_path / "permuted.bundle"))
    manifest = read_bundle(bundle).manifest
    first, second, *rest = manifest.labels
    write_manifest(bundle, replace(manifest, labels=(second, first, *rest)))
    report = verify(bundle, data=photographs, precisions=["fp32"])
    assert "not in the order of the network's classes" in _failed(report)["fp32 labels"]


def test_a_graph_quantized_on_other_images_falls_short(
    sound: Path, shared_data: Path, photographs: Path, tmp_path: Path
) -> None:
    """Ranges of a data set whose images are nearly black."""
    from PIL import Image

    folder = tmp_path / "dark"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(64):
        pixels = random.integers(0, 12, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    bundle = Path(shutil.copytree(sound, tmp_path / "other.bundle"))
    quantize(bundle, folder, force=True, repair=False)
    report = verify(bundle, data=photographs, precisions=["int8"])
    found = _failed(report)
    assert any("as-promised" in name for name in found) and "promised" in " ".join(found.values())


def test_real_images_of_another_data_set_are_named_as_the_cause(
    sound: Path, shared_data: Path, photographs: Path, tmp_path: Path
) -> None:
    """Flowers for a network of CIFAR-10: natural images too, so accuracy hardly shows."""
    bundle = Path(shutil.copytree(sound, tmp_path / "flowers.bundle"))
    quantize(bundle, shared_data / "flowers" / "calib", images=128, force=True, repair=False)
    report = verify(bundle, data=photographs, precisions=["int8"])
    found = _failed(report)
    assert "they are of another kind: quantize again" in found["int8 calibration-images"]
    assert "was calibrated on images of another kind" in report.reason
    like = verify(sound, data=photographs, precisions=["int8"])
    (gate,) = (g for g in like.gates if g.name == "calibration-images" and g.variant == "int8")
    assert gate.verdict == "pass"


def test_an_engine_of_another_graph_is_no_engine_of_this_one(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session with other weights stands for the engine."""
    weights = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)

    def other(model: object, **_: object) -> FakeSession:
        return FakeSession(lambda batch: batch.mean(axis=(2, 3)) @ weights, size_px=32, classes=10)

    monkeypatch.setattr(candidates, "open_session", other)
    report = verify(sound, backends=["tensorrt"], precisions=["int8"])
    assert "computed otherwise here" in _failed(report)["int8 as-promised"]
