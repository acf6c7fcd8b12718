"""What is published is described in the manifest; what is no longer made goes."""

import json
import shutil
from pathlib import Path

import onnx
import pytest

from resdeploy.calibration import quantize
from resdeploy.calibration.ranges.ranges import read_ranges
from resdeploy.deploy.bundle.bundle import INT8_REPORT, RANGES, read_bundle


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(flower_bundle, tmp_path / "flowers.bundle"))


def test_files_manifest_ranges_and_report_belong_together(bundle: Path, image_folder: Path) -> None:
    report = quantize(bundle, image_folder, repair=False, force=True)
    opened = read_bundle(bundle)
    told, written = (json.dumps(m.to_json()) for m in (report.manifest, opened.manifest))
    assert json.loads(told) == json.loads(written)
    for variant in ("int8", "int8-fp16", "int8-cpu"):
        graph = onnx.load(opened.graph(variant))
        properties = {entry.key: entry.value for entry in graph.metadata_props}
        assert opened.manifest.variants["fp32"].sha256 in properties.values()
    stored = read_ranges(bundle / RANGES)
    assert set(stored.grids) == {"int8", "uint8"}
    assert "input" in stored.grids["int8"]
    content = json.loads((bundle / INT8_REPORT).read_text())
    assert set(content) == {"calibration", "layers", "shares"}
    assert set(content["layers"]) == {"int8", "int8-cpu"}


def test_floats_stay_as_they_were(bundle: Path, image_folder: Path) -> None:
    before = (bundle / "fp32.onnx").read_bytes()
    quantize(bundle, image_folder, repair=False, force=True)
    assert (bundle / "fp32.onnx").read_bytes() == before
