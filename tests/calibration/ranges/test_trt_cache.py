"""The calibration cache has TensorRT's text form."""

import struct
from pathlib import Path

import pytest

from resdeploy.calibration.ranges.ranges import Range
from resdeploy.calibration.ranges.trt_cache import write_trt_cache
from resdeploy.deploy.errors import InputError


def test_lines_are_name_and_big_endian_scale(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    write_trt_cache(path, {"input": Range(-2.0, 1.0), "conv1.relu_output": Range(0.0, 127.0)})
    header, first, second = path.read_text().splitlines()
    assert header == "TRT-8502-EntropyCalibration2"
    name, value = first.split(": ")
    assert name == "input"
    assert struct.unpack(">f", bytes.fromhex(value))[0] == pytest.approx(2 / 127)
    assert second == "conv1.relu_output: 3f800000"


@pytest.mark.parametrize(
    ("version", "number"), [("8.6.1", 8601), ("10.3.0", 100300), ("10.16.2", 101602)]
)
def test_version_number(tmp_path: Path, version: str, number: int) -> None:
    write_trt_cache(tmp_path / "cache", {}, tensorrt_version=version)
    assert (tmp_path / "cache").read_text() == f"TRT-{number}-EntropyCalibration2\n"


@pytest.mark.parametrize("version", ["ten", "8.5", "11.0.0"])
def test_other_versions_are_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(InputError, match="TensorRT"):
        write_trt_cache(tmp_path / "cache", {}, tensorrt_version=version)
    assert not list(tmp_path.iterdir())
