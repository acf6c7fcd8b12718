"""INT8 of networks that were really trained, on photographs they were not calibrated with."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from resdeploy.calibration.graph.layers import with_biases
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


@pytest.fixture
def copy(resnet18: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(resnet18, tmp_path / "copy.bundle"))


def _check(bundle: Path, shared_data: Path, images: int | None, least: dict[str, float]) -> None:
    flowers = shared_data / "flowers"
    calib = None if images is None else flowers / "calib"
    report = quantize(bundle, calib, images=images or 1, data=flowers / "val")
    assert not report.refused
    for variant, least_db in least.items():
        figures = report.accuracy[variant]
        assert figures["images"] == 367
        assert figures["sqnr_db"] >= least_db, variant
        recipe = report.calibration["recipes"].get(variant, {"float": []})
        assert not recipe["float"], variant
        assert figures["agreement"] >= (95.0 if images is None else 97.0), variant


def test_resnet18(copy: Path, shared_data: Path) -> None:
    _check(copy, shared_data, 64, {"int8": 26.0, "int8-cpu": 27.0})


def test_resnet18_without_images(copy: Path, shared_data: Path) -> None:
    _check(copy, shared_data, None, {"int8": 18.0, "int8-cpu": 19.0})


def test_resnext50(shared_data: Path, tmp_path: Path) -> None:
    bundle = _exported(shared_data, "flowers_resnext50_32x4d", tmp_path)
    _check(bundle, shared_data, 64, {"int8": 31.0, "int8-cpu": 32.0})


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
