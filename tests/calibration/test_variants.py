"""A variant that loses too much is refused by its reason, and forced only on request."""

import shutil
from pathlib import Path

import pytest

from resdeploy.calibration import job, quantize, variants
from resdeploy.calibration.observe.images import read_batches
from resdeploy.calibration.repair.budget import Budget
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.bundle.bundle import RANGES, read_bundle
from resdeploy.deploy.errors import EXIT_GATE_FAILED
from resdeploy.deploy.images.files import find_images
from resdeploy.deploy.metrics.logits import sqnr_db


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(flower_bundle, tmp_path / "flowers.bundle"))


@pytest.mark.slow
def test_a_variant_that_lost_its_answers_is_refused_and_not_written(
    bundle: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "Budget", lambda: Budget(least_sqnr_db=90.0))
    report = quantize(bundle, image_folder, repair=False)
    assert report.exit_code == EXIT_GATE_FAILED
    assert set(report.refused) == {"int8", "int8-fp16", "int8-cpu"}
    assert "most of the error comes from" in report.refused["int8"]
    assert set(report.manifest.variants) == {"fp32"}
    assert not list(bundle.glob("int8*.onnx"))
    assert (bundle / RANGES).is_file() and (bundle / "reports" / "int8.json").is_file()

    forced = quantize(bundle, image_folder, repair=False, force=True)
    assert forced.exit_code == 0 and forced.refused
    assert (bundle / "int8.onnx").is_file()


@pytest.fixture
def copies(image_folder: Path, tmp_path: Path) -> Path:
    """Forty images, of which sixteen are held back."""
    folder = tmp_path / "copies"
    folder.mkdir()
    for number, path in enumerate([*image_folder.iterdir(), *image_folder.iterdir()][:40]):
        shutil.copy(path, folder / f"{number}.jpg")
    return folder


def test_files_are_fitted_to_all_images_and_figures_are_from_before(
    bundle: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = quantize(bundle, copies, repair=False, force=True)
    kept = report.manifest.calibration
    assert kept is not None
    assert (kept["images"], kept["held_back"], kept["refit"]) == (40, 16, True)
    assert any("16 images held back; then" in line for line in report.notes)
    assert report.accuracy["int8"]["images"] == 16
    fitted, figures = (bundle / "int8.onnx").read_bytes(), report.accuracy["int8"]["sqnr_db"]

    monkeypatch.setattr(job, "_REFIT_BELOW", 40)
    before = quantize(bundle, copies, repair=False, force=True)
    kept = before.manifest.calibration
    assert kept is not None
    assert (kept["images"], kept["held_back"], kept["refit"]) == (24, 16, False)
    assert before.accuracy["int8"]["sqnr_db"] == figures
    assert (bundle / "int8.onnx").read_bytes() != fitted


def test_other_images_judge_the_files_themselves(
    bundle: Path, copies: Path, image_folder: Path
) -> None:
    report = quantize(bundle, copies, data=image_folder, repair=False, force=True)
    assert not any("held back" in line for line in report.notes)
    assert report.accuracy["int8"]["images"] == 24
    promised = report.manifest.proofs["promised"]["int8"]["images"]
    assert promised["of"] == "24 images given to quantize"
    opened = read_bundle(bundle)
    batches = list(read_batches(find_images([image_folder]), opened.manifest.preprocess, batch=4))
    expected = logits(opened.graph("fp32").read_bytes(), "fp32", batches, 1)
    got = logits((bundle / "int8.onnx").read_bytes(), "int8", batches, 1)
    assert sqnr_db(expected, got) == pytest.approx(report.accuracy["int8"]["sqnr_db"], abs=0.05)
