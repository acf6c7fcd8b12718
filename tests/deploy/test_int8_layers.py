"""`resdeploy inspect --precision int8` shows what quantizing measured, layer by layer."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli import cli
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.int8_layers import read_int8_layers


def test_rows_of_a_quantized_bundle(
    flower_bundle: Path, picture_folder: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "flowers.bundle"
    shutil.copytree(flower_bundle, bundle)
    arguments = ["quantize", str(bundle), "--calib", str(picture_folder), "--force"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    asked = ["inspect", str(bundle), "--precision", "int8"]
    shown = CliRunner().invoke(cli, asked)
    assert shown.exit_code == 0, shown.output
    for word in ("int8-cpu", "own dB", "share", "c1", "c2"):
        assert word in shown.stdout
    found = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    assert [row["name"] for row in found["layers"]["int8"]][:2] == ["c1", "c2"]
    assert found["layers"]["int8"][0]["scale"] > 0


def test_a_bundle_without_int8(flower_bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no INT8 graphs: add them with resdeploy quantize"):
        read_int8_layers(flower_bundle)
