"""`resdeploy inspect` and `doctor`: tables for people, the same as JSON, one line for an error."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from resdeploy.deploy.cli.inspection.describe import describe
from resdeploy.deploy.cli.inspection.inspect import doctor, inspect
from resdeploy.deploy.errors import InputError


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(inspect, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    if "--json" in arguments:
        assert result.stderr == ""
    else:
        done, *following = result.stderr.splitlines()
        assert done.startswith(f"inspected {arguments[0]} in ") and len(following) <= 2
    return result.stdout


@pytest.mark.parametrize("name", [".", "fp32.onnx"])
def test_json_is_the_description_and_nothing_else(flower_bundle: Path, name: str) -> None:
    path = flower_bundle / name
    assert json.loads(_run(path, "--json")) == describe(path)


def test_a_bundle_fits_a_screen(flower_bundle: Path) -> None:
    result = CliRunner().invoke(inspect, [str(flower_bundle)], catch_exceptions=False)
    for words in ("network", "5: daisy, dandelion", "32x32 pixels", "fp32.onnx", "intact"):
        assert words in result.stdout
    assert len(result.output.splitlines()) <= 24
    assert "all of it: inspect --json" in result.stderr


def test_a_graph_has_a_table_for_every_object_of_its_description(flower_bundle: Path) -> None:
    assert "GlobalAveragePool" in _run(flower_bundle / "fp32.onnx")


def test_a_row_only_for_what_there_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (64, 3, 3, 3), "fc.weight": (1000, 64), "fc.bias": (1000,)}
    save_file({n: rng.random(s, np.float32) for n, s in shapes.items()}, tmp_path / "a.safetensors")
    text = _run(tmp_path / "a.safetensors")
    rows = {line[1:].split("  ")[0] for line in text.splitlines() if line[1:2].isalpha()}
    assert rows == {"checkpoint", "format", "tensors", "sha256", "problem"}
    digits = _run(Path(__file__).parents[4] / "examples" / "digits_mobilenet_v2.pth")
    rows = {line[1:].split("  ")[0] for line in digits.splitlines() if line[1:2].isalpha()}
    assert "parameters" in rows and "250,922" in digits and "input size (px)" in rows
    sentences = [line.strip() for line in digits.splitlines() if "(change with --assume" in line]
    assert len(sentences) > 5 and all(line.count("change with") == 1 for line in sentences)
    assert "\\n" not in digits
    assert not rows & {"notes", "sidecar", "prefix", "wrapper", "trained ranges", "extras"}


def test_errors_reach_the_command_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(inspect, [str(tmp_path / "absent.pth")])
    assert isinstance(result.exception, InputError) and result.stdout == ""


def test_a_bundle_without_int8_has_no_int8_layers(flower_bundle: Path) -> None:
    result = CliRunner().invoke(inspect, [str(flower_bundle), "--precision", "int8"])
    assert "resdeploy quantize" in str(result.exception)


def test_doctor_marks_what_works() -> None:
    result = CliRunner().invoke(doctor, [], catch_exceptions=False)
    line = next(line for line in result.stdout.splitlines() if line.strip().startswith("ort-cpu"))
    assert "works" in line and "the right numbers" in line
    done, first, second = result.stderr.splitlines()
    assert done.startswith("tried ") and done.endswith(" s")
    assert first == "next: resdeploy export CHECKPOINT --data DIR"
    assert second == "  or: resdeploy predict BUNDLE IMAGE"
