"""`quantize` on real networks and images: what is published is right."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from resdeploy.calibration import quantize
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.export import ExportOptions, export_checkpoint


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(flower_bundle, tmp_path / "flowers.bundle"))


@pytest.fixture(scope="module")
def cifar(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cifar") / "resnet20.bundle"
    export_checkpoint(
        shared_data / "checkpoints" / "cifar10_resnet20.th",
        ExportOptions(output=path, classes=shared_data / "cifar10_class_indices.json"),
    )
    return path


@pytest.mark.slow
@pytest.mark.realdata
def test_a_real_network_keeps_its_accuracy(shared_data: Path, cifar: Path) -> None:
    report = quantize(
        cifar,
        shared_data / "cifar10" / "calib",
        images=128,
        data=shared_data / "cifar10" / "val",
    )
    assert report.exit_code == 0 and not report.refused
    assert set(report.manifest.variants) == {"fp32", "fp16", "int8", "int8-fp16", "int8-cpu"}
    for variant, least_db in (("int8", 26.0), ("int8-fp16", 26.0), ("int8-cpu", 28.0)):
        figures = report.accuracy[variant]
        assert figures["images"] == 1000
        assert figures["drop"] <= 0.5, variant
        assert figures["sqnr_db"] >= least_db, variant
    # The figures are those of the files: the session that a user opens answers so.
    inputs = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    with open_session(open_model(cifar), precision="int8", backend="ort-cpu") as session:
        got = session.run(inputs)
    with OrtSession(cifar / "int8-cpu.onnx", variant="int8-cpu") as session:
        np.testing.assert_array_equal(got, session.run(inputs))

    again = quantize(
        cifar,
        shared_data / "cifar10" / "calib",
        images=128,
        data=shared_data / "cifar10" / "val",
    )
    assert again.notes[0].endswith("nothing to do")
    assert again.accuracy == json.loads(json.dumps(report.accuracy))


@pytest.mark.slow
def test_other_images_or_options_are_not_taken_for_the_same(
    bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    quantize(bundle, image_folder, repair=False, force=True)
    fewer = quantize(bundle, image_folder, images=20, repair=False, force=True)
    assert any("calibration images changed" in line for line in fewer.notes)
    other = quantize(bundle, image_folder, images=20, repair=False, weights="float", force=True)
    assert any("other options" in line for line in other.notes)
    assert read_bundle(bundle).manifest.calibration is not None


def test_a_bundle_that_cannot_be_replaced_is_refused_before_any_work(
    bundle: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, mode: int = 0o777) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    steps: list[str] = []
    with pytest.raises(InputError, match=r"flowers\.bundle: cannot be written: Read-only"):
        quantize(bundle, image_folder, progress=lambda step, done, total: steps.append(step))
    assert steps == []


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(bundle: Path, image_folder: Path) -> None:
    names = ("int8.onnx", "int8-fp16.onnx", "int8-cpu.onnx", "ranges.json")
    quantize(bundle, image_folder, force=True)
    first = {name: (bundle / name).read_bytes() for name in names}
    quantize(bundle, image_folder, force=True)
    assert first == {name: (bundle / name).read_bytes() for name in names}


def test_max_drop_needs_labels(bundle: Path, image_folder: Path) -> None:
    with pytest.raises(InputError, match="--max-drop needs labelled images"):
        quantize(bundle, image_folder, max_drop=0.5)
    with pytest.raises(InputError, match="method 'magic' is not one of auto"):
        quantize(bundle, image_folder, method="magic")
