"""A real network on real photographs: replayed, on images, and against PyTorch live."""

import csv
from functools import partial
from pathlib import Path

import pytest

from resdeploy.calibration.layerwise import layer_errors
from resdeploy.deploy.verification.verify import verify
from resdeploy.export import ExportOptions, export_checkpoint
from resdeploy.export.proof.live import open_checkpoint

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

_EVERY = 5  # of 367 photographs, so that it takes seconds


@pytest.fixture(scope="module")
def checkpoint(shared_data: Path) -> Path:
    return shared_data / "checkpoints" / "flowers_mobilenet_v2.pth"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, shared_data: Path, checkpoint: Path) -> Path:
    path = tmp_path_factory.mktemp("real") / "flowers.bundle"
    classes = shared_data / "flowers_class_indices.json"
    export_checkpoint(
        checkpoint, ExportOptions(output=path, classes=classes, preprocess="imagenet")
    )
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A list of every fifth validation photograph with its class."""
    file = tmp_path_factory.mktemp("list") / "val.csv"
    paths = sorted((shared_data / "flowers" / "val").glob("*/*.jpg"))[::_EVERY]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([path, path.parent.name] for path in paths)
    return file


def test_the_float_variants_pass_against_pytorch_live(
    bundle: Path, photographs: Path, checkpoint: Path
) -> None:
    report = verify(bundle, data=photographs, live=partial(open_checkpoint, checkpoint), max_drop=5)
    assert report.verdict == "pass" and "in PyTorch" in report.reference
    assert [note[:39] for note in report.notes] == ["nothing guards against a bad checkpoint"]
    found = report.to_json()["variants"]
    assert list(found) == ["fp32", "fp16"] and found["fp32"]["images"] == 74
    assert found["fp32"]["agreement"] == 100 and found["fp32"]["max_abs"] < 1e-3
    assert 75 < found["fp32"]["top1"] == found["fp32"]["top1_reference"] < 95
    # numerically equal: even 74 images decide
    assert found["fp32"]["drop_ci95"][1] < 0.5 < found["fp16"]["drop_ci95"][1]


def test_recorded_answers_need_neither_images_nor_torch(bundle: Path, checkpoint: Path) -> None:
    recorded, live = verify(bundle), verify(bundle, live=partial(open_checkpoint, checkpoint))
    for report in (recorded, live):
        assert report.verdict == "pass"
        assert report.to_json()["variants"]["fp32"]["sqnr_db"] > 90
        assert report.to_json()["variants"]["fp16"]["sqnr_db"] > 30


def test_wrong_preprocessings_are_tried_and_the_right_one_is_kept(
    bundle: Path, photographs: Path
) -> None:
    report = verify(bundle, data=photographs, precisions=["fp32"], explain=layer_errors)
    assert report.verdict == "pass"
    assert report.explanation is not None and report.explanation.search is not None
    search = report.explanation.search
    by_name = {trial.name: trial.top1 for trial in search.trials}
    assert by_name["BGR instead of RGB"] < search.top1 - 5
    assert by_name["pixels not divided by 255"] < 50
