"""`resdeploy quantize` as a user runs it, and the bad inputs users have."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from resdeploy.calibration.observe import collect
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.cli.conversion.quantize import repairs_in_words
from resdeploy.deploy.cli.main import cli
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


@pytest.mark.slow
def test_every_variant_is_written_measured_and_reused(
    bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    arguments = ("--calib", image_folder, "--force", "--no-repair")
    cache = tmp_path / "calibration.cache"
    result = _quantize(bundle, *arguments, "--json", "--write-trt-cache", cache)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    assert {"int8", "int8-fp16", "int8-cpu"} <= set(report["variants"])
    assert {"images", "method", "seconds"} <= set(report["calibration"])
    assert {"images", "agreement", "sqnr_db", "max_abs"} <= set(report["accuracy"]["int8"])
    assert isinstance(report["repairs"], list)
    assert any("only 24 calibration images" in line for line in report["notes"])
    opened = read_bundle(bundle)
    for variant in ("int8", "int8-fp16", "int8-cpu"):
        assert opened.graph(variant).is_file()
    assert cache.read_text().startswith("TRT-8502-EntropyCalibration2\ninput: ")

    before = _content(bundle)
    again = _quantize(bundle, *arguments)
    assert again.exit_code == 0, again.output
    assert _content(bundle).keys() == before.keys()


def test_a_table_for_people(bundle: Path, image_folder: Path) -> None:
    arguments = ("--calib", image_folder, "--force", "--method", "minmax")
    result = _quantize(bundle, *arguments)
    assert result.exit_code == 0, result.output
    for word in ("calibration images", "minmax", "int8-cpu", "SQNR dB", "same answer"):
        assert word in result.stdout
    first = next(line for line in result.stdout.splitlines() if "fp32" in line.split()[:1])
    _, ratio, ms = first.split()[1:4]
    assert ratio == "1.0" and float(ms) >= 0
    # a line for each step in a log, each with its seconds
    steps = re.findall(r"^([^:\n]+(?:: [^:\n]+)?): \d+\.\d s$", result.stderr, re.MULTILINE)
    assert steps[0] == "measuring activations"
    assert {"int8: rounding weights", "int8-cpu: rounding weights", "verifying"} <= set(steps)
    assert f"next: resdeploy verify {bundle}" in result.stderr
    assert "kept" not in result.stdout
    again = _quantize(bundle, *arguments, "--verbose")
    stored = read_bundle(bundle).manifest.calibration
    assert stored is not None
    assert ("kept" in again.stdout) == bool(stored["repairs"])


def test_the_change_of_top1_stands_beside_it(
    bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    names = read_bundle(bundle).manifest.labels
    data = tmp_path / "data"
    for number, file in enumerate(sorted(image_folder.iterdir())):
        folder = data / names[number % len(names)]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    result = _quantize(bundle, "--calib", image_folder, "--data", data, "--force", "--no-repair")
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if "int8-cpu" in line.split()[:1])
    assert re.search(r"% \([+-]\d+\.\d\d\)", row)


def _step(rung: str, accepted: bool, before: float, after: float, detail: str = "") -> Any:
    step = {"rung": rung, "detail": detail, "accepted": accepted}
    return {**step, "before": {"sqnr_db": before}, "after": {"sqnr_db": after}}


def test_repairs_are_told_in_one_sentence() -> None:
    steps = [_step("centre", True, 20.0, 22.5), _step("ranges", False, 22.5, 22.4)]
    steps = [*steps, _step("float", True, 22.5, 24.0, "conv3")]
    sentence = repairs_in_words("int8", steps, "images held back")
    assert sentence == (
        "int8: repaired from 20.0 to 24.0 dB on images held back, by moving the middle of "
        "activations to zero, leaving layers in float (conv3)"
    )
    fitted = repairs_in_words("int8", [_step("sequential_fit", True, 31.2, 31.1)], "images")
    assert fitted.startswith("int8: 31.2 dB on images, and 31.1 after fitting layer after layer")
    nothing = repairs_in_words("int8-cpu", [_step("ranges", False, 22.5, 22.4)], "images")
    assert nothing == "int8-cpu: 22.5 dB, and none of 1 repairs gained enough"


def test_interrupted_leaves_the_bundle_as_it_was(
    bundle: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = _content(bundle)
    monkeypatch.setattr(collect._TappedSession, "run", interrupt)
    result = _quantize(bundle, "--calib", image_folder)
    assert result.exit_code != 0
    assert _content(bundle) == before


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--calib", "nowhere"], CalibrationError, "nowhere: not a folder or list of images"),
        (["--calib", "."], CalibrationError, "no images there"),
        (["--trt-version", "11.0.0", "--write-trt-cache", "c"], InputError, "no calibration cache"),
    ],
)
def test_wrong_arguments(
    bundle: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    kind: type[Exception],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    if "--calib" not in arguments:
        arguments = [*arguments, "--calib", str(image_folder)]
    before = _content(bundle)
    result = _quantize(bundle, *arguments)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert _content(bundle) == before


def test_without_images_batch_norms_must_have_left_statistics(bundle: Path) -> None:
    result = _quantize(bundle)
    assert result.exit_code == 1
    assert "too few to quantize without images: give images with --calib DIR" in str(
        result.exception
    )


@pytest.mark.parametrize("count", [1, 3])
def test_very_few_images_work_and_are_remarked(
    bundle: Path, image_folder: Path, count: int
) -> None:
    result = _quantize(
        bundle, "--calib", image_folder, "--images", str(count), "--force", "--no-repair"
    )
    assert result.exit_code == 0, result.output
    assert f"only {count} calibration images" in result.stderr


def test_images_of_one_colour(bundle: Path, tmp_path: Path) -> None:
    """Constant activations: every tensor holds few values, some hold only zero."""
    folder = tmp_path / "black"
    folder.mkdir()
    for number in range(32):
        Image.new("RGB", (40, 40), (0, 0, number // 16)).save(folder / f"{number}.png")
    result = _quantize(bundle, "--calib", folder, "--force", "--no-repair")
    assert result.exit_code == 0, result.output
    assert "of a single colour" in result.stderr
    assert "are duplicates of others" in result.stderr


def test_a_graph_that_is_not_ours(bundle: Path, image_folder: Path, tmp_path: Path) -> None:
    import onnx

    from resdeploy.deploy.bundle.bundle import describe_file, write_manifest

    graph = bundle / "fp32.onnx"
    model = onnx.load(graph)
    model.opset_import[0].version = 11
    onnx.save(model, graph)
    manifest = read_bundle(bundle).manifest
    file = describe_file(graph, opset=11, made_from="checkpoint")
    write_manifest(bundle, manifest.with_variant("fp32", file))
    result = _quantize(bundle, "--calib", image_folder)
    assert isinstance(result.exception, GraphError)
    assert "operator set 11" in str(result.exception)


def test_nan_activations_are_refused(bundle: Path, image_folder: Path) -> None:
    import onnx
    from onnx import numpy_helper

    from resdeploy.deploy.bundle.bundle import describe_file, write_manifest

    graph = bundle / "fp32.onnx"
    model = onnx.load(graph)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "b1")
    values = np.full(8, np.nan, np.float32)
    bias.CopyFrom(numpy_helper.from_array(values, "b1"))
    onnx.save(model, graph)
    manifest = read_bundle(bundle).manifest
    file = describe_file(graph, opset=17, made_from="checkpoint")
    write_manifest(bundle, manifest.with_variant("fp32", file))
    result = _quantize(bundle, "--calib", image_folder)
    assert isinstance(result.exception, CalibrationError)
    assert "NaN or infinite values" in str(result.exception)
