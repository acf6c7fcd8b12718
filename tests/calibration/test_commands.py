"""`resdeploy quantize` as a user runs it, and the bad inputs users have."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from resdeploy.calibration import collect
from resdeploy.deploy.bundle import read_bundle
from resdeploy.deploy.cli import cli
from resdeploy.deploy.errors import CalibrationError, GraphError, InputError


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(flower_bundle, tmp_path / "flowers.bundle"))


def _quantize(bundle: Path, *arguments: str | Path) -> Result:
    words = ["quantize", str(bundle), *map(str, arguments)]
    return CliRunner().invoke(cli, words)


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_variant_is_written_measured_and_reused(
    bundle: Path, picture_folder: Path, tmp_path: Path
) -> None:
    arguments = ("--calib", picture_folder, "--force", "--no-repair")
    cache = tmp_path / "calibration.cache"
    result = _quantize(bundle, *arguments, "--json", "--write-trt-cache", cache)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    assert {"int8", "int8-fp16", "int8-cpu"} <= set(report["variants"])
    assert {"images", "method", "seconds"} <= set(report["calibration"])
    assert {"images", "agreement", "sqnr_db", "max_abs"} <= set(report["accuracy"]["int8"])
    assert isinstance(report["repairs"], list)
    assert any("only 24 calibration pictures" in line for line in report["notes"])
    opened = read_bundle(bundle)
    for variant in ("int8", "int8-fp16", "int8-cpu"):
        assert opened.graph(variant).is_file()
    assert cache.read_text().startswith("TRT-8502-EntropyCalibration2\ninput: ")

    before = _content(bundle)
    again = _quantize(bundle, *arguments)
    assert again.exit_code == 0, again.output
    assert _content(bundle).keys() == before.keys()


def test_tables_for_people(bundle: Path, picture_folder: Path) -> None:
    result = _quantize(bundle, "--calib", picture_folder, "--force", "--method", "minmax")
    assert result.exit_code == 0, result.output
    for word in ("calibration pictures", "minmax", "int8-cpu", "SQNR dB", "same answer"):
        assert word in result.stdout


def test_interrupted_leaves_the_bundle_as_it_was(
    bundle: Path, picture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = _content(bundle)
    monkeypatch.setattr(collect._Tap, "run", interrupt)
    result = _quantize(bundle, "--calib", picture_folder)
    assert result.exit_code != 0
    assert _content(bundle) == before


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--calib", "nowhere"], CalibrationError, "nowhere: not a folder or list of pictures"),
        (["--calib", "."], CalibrationError, "no pictures there"),
        (["--trt-version", "11.0.0", "--write-trt-cache", "c"], InputError, "no calibration cache"),
    ],
)
def test_wrong_arguments(
    bundle: Path,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    kind: type[Exception],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    if "--calib" not in arguments:
        arguments = [*arguments, "--calib", str(picture_folder)]
    before = _content(bundle)
    result = _quantize(bundle, *arguments)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert _content(bundle) == before


def test_calib_is_required(bundle: Path) -> None:
    assert _quantize(bundle).exit_code == 2


@pytest.mark.parametrize("count", [1, 3])
def test_very_few_pictures_work_and_are_remarked(
    bundle: Path, picture_folder: Path, count: int
) -> None:
    result = _quantize(
        bundle, "--calib", picture_folder, "--images", str(count), "--force", "--no-repair"
    )
    assert result.exit_code == 0, result.output
    assert f"only {count} calibration pictures" in result.stderr


def test_pictures_of_one_colour(bundle: Path, tmp_path: Path) -> None:
    """Constant activations: every tensor holds few values, some hold only zero."""
    folder = tmp_path / "black"
    folder.mkdir()
    for number in range(32):
        Image.new("RGB", (40, 40), (0, 0, number // 16)).save(folder / f"{number}.png")
    result = _quantize(bundle, "--calib", folder, "--force", "--no-repair")
    assert result.exit_code == 0, result.output
    assert "of a single colour" in result.stderr
    assert "are duplicates of others" in result.stderr


def test_a_graph_that_is_not_ours(bundle: Path, picture_folder: Path, tmp_path: Path) -> None:
    import onnx

    from resdeploy.deploy.bundle import describe_file, write_manifest

    graph = bundle / "fp32.onnx"
    model = onnx.load(graph)
    model.opset_import[0].version = 11
    onnx.save(model, graph)
    manifest = read_bundle(bundle).manifest
    file = describe_file(graph, opset=11, made_from="checkpoint")
    write_manifest(bundle, manifest.with_variant("fp32", file))
    result = _quantize(bundle, "--calib", picture_folder)
    assert isinstance(result.exception, GraphError)
    assert "operator set 11" in str(result.exception)


def test_nan_activations_are_refused(bundle: Path, picture_folder: Path) -> None:
    import onnx
    from onnx import numpy_helper

    from resdeploy.deploy.bundle import describe_file, write_manifest

    graph = bundle / "fp32.onnx"
    model = onnx.load(graph)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "b1")
    values = np.full(8, np.nan, np.float32)
    bias.CopyFrom(numpy_helper.from_array(values, "b1"))
    onnx.save(model, graph)
    manifest = read_bundle(bundle).manifest
    file = describe_file(graph, opset=17, made_from="checkpoint")
    write_manifest(bundle, manifest.with_variant("fp32", file))
    result = _quantize(bundle, "--calib", picture_folder)
    assert isinstance(result.exception, CalibrationError)
    assert "NaN or infinite values" in str(result.exception)
