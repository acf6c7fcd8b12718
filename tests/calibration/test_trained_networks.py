"""INT8 of networks that were really trained, on photographs they were not calibrated with."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.job import QuantizeReport
from resdeploy.calibration.observe.familiarity import familiarity
from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.pipeline import quantize
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.channel_statistics import read_channel_statistics
from resdeploy.export.graph.onnx_file import load_graph
from resdeploy.export.pipeline import ExportOptions, export_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.realdata]


def _exported(shared_data: Path, name: str, folder: Path) -> Path:
    return export_checkpoint(
        shared_data / "checkpoints" / f"{name}.pth",
        ExportOptions(
            output=folder / f"{name}.bundle",
            classes=shared_data / "flowers_class_indices.json",
            input_size_px=96,
            resize_px=110,
            precisions=("fp32",),
        ),
    ).bundle


@pytest.fixture(scope="module")
def resnet18(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _exported(shared_data, "flowers_resnet18", tmp_path_factory.mktemp("resnet18"))


@pytest.fixture(scope="module")
def evaluated(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fourth photograph of flowers/val: signal-to-noise ratios settle within a few."""
    folder = tmp_path_factory.mktemp("quarter")
    for kind in sorted((shared_data / "flowers" / "val").iterdir()):
        (folder / kind.name).mkdir()
        for photograph in sorted(kind.iterdir())[::4]:
            (folder / kind.name / photograph.name).symlink_to(photograph)
    return folder


# Limits are the figures of an x86 without VNNI, less 1 dB. `most_points` limits the drop of top-1
# by the logits: of 93 images too few answers flip to be counted.
def _check(
    report: QuantizeReport,
    least_agreement: float,
    least_db: dict[str, float],
    most_points: float = 0.3,
) -> None:
    assert not report.refused
    for variant, db in least_db.items():
        figures = report.accuracy[variant]
        assert figures["sqnr_db"] >= db, variant
        assert figures["agreement"] >= least_agreement, variant
        assert abs(figures["drop_calibrated"]) <= most_points, variant
        recipe = report.calibration["recipes"].get(variant, {"float": []})
        assert not recipe["float"], variant


def test_resnet18_without_repairs(
    resnet18: Path, evaluated: Path, shared_data: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(resnet18, tmp_path / "copy.bundle"))
    calib = shared_data / "flowers" / "calib"
    report = quantize(copy, calib, images=32, data=evaluated, repair=False)
    assert report.accuracy["int8"]["images"] == 93
    _check(report, 96.5, {"int8": 30.0, "int8-cpu": 30.3})


def test_resnext50(evaluated: Path, shared_data: Path, tmp_path: Path) -> None:
    bundle = _exported(shared_data, "flowers_resnext50_32x4d", tmp_path)
    report = quantize(bundle, shared_data / "flowers" / "calib", images=32, data=evaluated)
    fitted = [step["variant"] for step in report.repairs if step["rung"] == "sequential_fit"]
    assert fitted == ["int8", "int8-cpu"]
    _check(report, 98.5, {"int8": 33.2, "int8-cpu": 33.6})


def test_resnet20_without_images(shared_data: Path, tmp_path: Path) -> None:
    """By batch-norm statistics alone, judged on the photographs of CIFAR-10."""
    bundle = export_checkpoint(
        shared_data / "checkpoints" / "cifar10_resnet20.th",
        ExportOptions(
            output=tmp_path / "resnet20.bundle",
            classes=shared_data / "cifar10_class_indices.json",
            precisions=("fp32",),
        ),
    ).bundle
    report = quantize(bundle, None, data=shared_data / "cifar10" / "val")
    assert report.accuracy["int8"]["images"] == 1000
    _check(report, 96.0, {"int8": 23.5, "int8-cpu": 24.7}, most_points=0.6)


def test_black_images_are_unfamiliar_and_flowers_are_not(resnet18: Path, shared_data: Path) -> None:
    from resdeploy.calibration.observe.images import choose_images, read_batches

    bundle = read_bundle(resnet18)
    model = with_biases(load_graph(bundle.graph("fp32")))
    statistics = read_channel_statistics(bundle)
    assert len(statistics) == 20
    paths = choose_images(shared_data / "flowers" / "calib", images=16).paths
    flowers = list(read_batches(paths, bundle.manifest.preprocess))
    black = [np.full_like(batch, flowers[0].min()) for batch in flowers]
    for batches, unfamiliar in ((flowers, False), (black, True)):
        observed = gather(model, lambda batches=batches: batches, 16, threads=1)  # type: ignore[misc]
        found = familiarity(observed, statistics)
        assert found is not None and found.unfamiliar == unfamiliar, found
