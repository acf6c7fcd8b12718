"""Activation ranges: the integer grid each one means, and `ranges.json`, which keeps them.

With a range [low, high] of float values x and the stored integer q:

    symmetric int8   s = max(|low|, |high|) / 127                    x ≈ s·q,        −128 ≤ q ≤ 127
    affine uint8     s = (high⁺ − low⁻) / 255, z = round(−low⁻ / s)  x ≈ s·(q − z),     0 ≤ q ≤ 255

where low⁻ = min(low, 0) and high⁺ = max(high, 0): zero is always on the grid, since convolutions
pad with it. A tensor that is always zero has the scale 1, with which it is exact.

`ranges.json` carries a content key, the hashes of everything the ranges depend on: ranges are
reused only while the key is the same, and `stale_reason` says what changed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from resdeploy.deploy.errors import CalibrationError
from resdeploy.deploy.reading import read_json
from resdeploy.deploy.targets import Grid

# The largest integer of the symmetric int8 grid.
LARGEST_INT8 = 127

# 2: extremes of every value, where version 1 had those of a sample.
_FORMAT_VERSION = 2
# Smallest scale: below it 1 / scale overflows float32 (and TensorRT asks for a positive scale).
_SMALLEST_SCALE = 1e-30
_SMALLEST_HALF = float(np.finfo(np.float16).smallest_normal)
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of one activation tensor that the grid must hold.

    Raises:
        ValueError: not finite, or low > high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"[{self.low}, {self.high}] is not a range")


def symmetric_scale(values: Range) -> np.float32:
    """Scale of the symmetric int8 grid: max(|low|, |high|) / 127."""
    return _positive(max(abs(values.low), abs(values.high)) / LARGEST_INT8)


def half_above(scale: float) -> float:
    """The smallest float16 that is not below a scale, itself where half has no such normal number.

    A scale that half holds exactly is the same in int8.onnx and int8-fp16.onnx.
    """
    half = np.float16(scale) if scale < _LARGEST_HALF else np.float16(np.inf)
    if float(half) < scale:  # by itself numpy would round the scale to half, too
        half = np.nextafter(half, np.float16(np.inf))
    return float(half) if _SMALLEST_HALF <= float(half) < np.inf else scale


def affine_uint8(values: Range) -> tuple[np.float32, int]:
    """Scale and zero point of the uint8 grid that holds the range and zero."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    scale = _positive((high - low) / 255.0)
    return scale, min(255, max(0, round(-low / float(scale))))


def _positive(scale: float) -> np.float32:
    return np.float32(scale) if scale > _SMALLEST_SCALE else np.float32(1.0)


@dataclass(frozen=True)
class RangesKey:
    """What ranges depend on: sha256 of the float graph, of the images (which, preprocessed, are
    the pixels) and of the preprocessing; the range method; the version of resdeploy.
    """

    graph: str
    images: str
    preprocess: str
    method: str
    version: str


# What a changed field of the key is called in a report.
_CHANGED = {
    "graph": "the float graph",
    "images": "the calibration images",
    "preprocess": "the preprocessing",
    "method": "the range method",
    "version": "the version of resdeploy",
}


@dataclass(frozen=True)
class StoredRanges:
    """The contents of `ranges.json`: the key, the number of images, grid → tensor → range."""

    key: RangesKey
    images: int
    grids: Mapping[Grid, Mapping[str, Range]]


def stale_reason(stored: RangesKey, wanted: RangesKey) -> str | None:
    """What changed since the ranges were stored, None when they still hold."""
    changed = [
        _CHANGED[field.name]
        for field in fields(RangesKey)
        if getattr(stored, field.name) != getattr(wanted, field.name)
    ]
    return " and ".join(changed) + " changed" if changed else None


def write_ranges(path: Path, ranges: StoredRanges) -> None:
    """Write `ranges.json`; low and high keep all their bits."""
    document = {
        "format_version": _FORMAT_VERSION,
        "key": asdict(ranges.key),
        "images": ranges.images,
        "grids": {
            grid: {tensor: [r.low, r.high] for tensor, r in tensors.items()}
            for grid, tensors in ranges.grids.items()
        },
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_ranges(path: Path) -> StoredRanges:
    """Read what `write_ranges` wrote.

    Raises:
        CalibrationError: missing, not JSON, of another format version, or a range is malformed.
    """
    try:
        document = read_json(path)
        if document["format_version"] != _FORMAT_VERSION:
            raise CalibrationError(
                f"{path} has format version {document['format_version']}, "
                f"expected {_FORMAT_VERSION}: delete it, the next run measures the ranges again"
            )
        return StoredRanges(
            key=RangesKey(**document["key"]),
            images=int(document["images"]),
            grids={
                grid: {name: Range(*map(float, ends)) for name, ends in tensors.items()}
                for grid, tensors in document["grids"].items()
            },
        )
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(
            f"{path} is not a ranges file ({type(error).__name__}: {error}): "
            "delete it, the next run measures the ranges again"
        ) from error


def check_covers(ranges: Mapping[str, Range], tensors: tuple[str, ...], source: str) -> None:
    """Refuse ranges that belong to another graph.

    Raises:
        CalibrationError: a tensor of the plan has no range; `source` names the ranges.
    """
    missing = [tensor for tensor in tensors if tensor not in ranges]
    if missing:
        raise CalibrationError(
            f"{source} has no range for {len(missing)} of {len(tensors)} tensors, "
            f"first {missing[0]!r}: it belongs to another graph, measure the ranges again"
        )
