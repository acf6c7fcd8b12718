"""`resdeploy adopt` as typed: tables, JSON, and what it refuses."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli.main import cli
from tests.conftest import tiny_graph


def _graph(folder: Path) -> Path:
    onnx.save(tiny_graph(), folder / "tiny.onnx")
    (folder / "labels.txt").write_text("daisy\ndandelion\nroses\nsunflowers\ntulips\n")
    return folder / "tiny.onnx"


@pytest.mark.slow
def test_the_table_names_the_adopted_graph_and_json_the_same_figures(tmp_path: Path) -> None:
    graph = _graph(tmp_path)
    words = ["adopt", str(graph), "-o", str(tmp_path / "t.bundle"), "--preprocess", "imagenet"]
    shown = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "max |Δ| to the adopted graph" in shown.output and "PyTorch" not in shown.output
    assert "5: daisy, dandelion" in shown.output
    assert "assumed: class names are those of labels.txt beside tiny.onnx" in shown.output
    told = CliRunner().invoke(cli, [*words, "--overwrite", "--json"], catch_exceptions=False)
    report = json.loads(told.stdout)
    assert report["architecture"] == "tiny" and report["classes"] == 5
    assert report["proofs"]["parity"]["top1_agreement"] == 100


def test_int8_is_the_next_step(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["adopt", str(_graph(tmp_path)), "--precision", "int8"])
    assert done.exit_code == 2 and "adopt first, then use resdeploy quantize" in done.output
