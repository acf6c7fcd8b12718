"""A variant that loses too much is refused by its reason, and forced only on request."""

import shutil
from pathlib import Path

import pytest

from resdeploy.calibration import quantize, variants
from resdeploy.calibration.repair.budget import Budget
from resdeploy.deploy.bundle.bundle import RANGES
from resdeploy.deploy.errors import EXIT_GATE_FAILED


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
