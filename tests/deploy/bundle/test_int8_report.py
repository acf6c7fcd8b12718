"""`resdeploy inspect --precision int8` shows what quantizing measured, layer by layer."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from resdeploy.deploy.bundle.int8_report import COLUMNS, EXPLAINED, read_int8_layers, table_row
from resdeploy.deploy.cli.main import cli
from resdeploy.deploy.errors import BundleError


@pytest.mark.slow
def test_rows_of_a_quantized_bundle(
    flower_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "flowers.bundle"
    shutil.copytree(flower_bundle, bundle)
    arguments = ["quantize", str(bundle), "--calib", str(image_folder), "--force"]
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


def test_every_column_of_figures_is_explained() -> None:
    explained = {line.partition(":")[0] for line in EXPLAINED}
    assert {column.lstrip(">") for column in COLUMNS} - {"operator"} <= explained


def test_an_output_that_a_repair_moved_shows_no_error() -> None:
    row = {"name": "c", "op_type": "Conv", "low": -3.0, "high": 3.0, "scale": 0.02}
    moved = table_row({**row, "own_db": -39.4, "whole_db": -4.0, "share": 0.0})
    assert moved == ["c", "Conv", "-3 to 3", "moved", "", ""]
    sound = table_row({**row, "own_db": 45.1, "whole_db": 28.9, "share": 0.003})
    assert sound == ["c", "Conv", "-3 to 3", "45.1", "28.9", "0.3%"]
