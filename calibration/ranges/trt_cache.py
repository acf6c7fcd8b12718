"""Writes int8 ranges as a TensorRT calibration cache, for builds on implicit INT8 (TensorRT < 11).

Text, one tensor a line: its name and the scale s = max(|low|, |high|) / 127 as the hexadecimal of
its big-endian float32. The first line names the version and the algorithm:

    TRT-8502-EntropyCalibration2
    input: 3c8b4396

The builder asks a calibrator for this text (`read_calibration_cache`, `trtexec --calib`) and
refuses it unless version and algorithm are its own. Tensors without a line stay in float.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

from resdeploy.calibration.ranges.ranges import Range, symmetric_scale
from resdeploy.deploy.defaults import TENSORRT_CACHE_VERSION
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.files import replaced_file

# What JetPack 5 ships: the users of implicit INT8.
_ALGORITHM = "EntropyCalibration2"


def write_trt_cache(
    path: Path, ranges: Mapping[str, Range], *, tensorrt_version: str = TENSORRT_CACHE_VERSION
) -> None:
    """Write the cache for the TensorRT version that will read it, e.g. "8.5.2".

    Raises:
        InputError: the version is not three numbers or has no calibrators any more, or the file
            cannot be written.
    """
    lines = [header(tensorrt_version)]
    lines += [f"{name}: {_hexadecimal(chosen)}" for name, chosen in ranges.items()]
    with replaced_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def header(tensorrt_version: str) -> str:
    """The first line of a cache for that version; raises InputError like `write_trt_cache`."""
    return f"TRT-{_version_number(tensorrt_version)}-{_ALGORITHM}"


def _hexadecimal(chosen: Range) -> str:
    return struct.pack(">f", float(symmetric_scale(chosen))).hex()


def _version_number(version: str) -> int:
    """NV_TENSORRT_VERSION: 8502 for 8.5.2, and since version 10 with two digits each, 100300."""
    try:
        major, minor, patch = (int(part) for part in version.split("."))
    except ValueError as error:
        raise InputError(
            f"TensorRT version {version!r} is not of the form 8.5.2 (see resdeploy doctor)"
        ) from error
    if major >= 11:
        raise InputError(
            f"TensorRT {version} has no calibration caches any more: build from int8-fp16.onnx"
        )
    return (10_000 if major >= 10 else 1_000) * major + 100 * minor + patch
