"""How far a session's feature maps are from the reference's, image by image.

With z the reference's map of an image, (C, h, w), and y the deployment's, over all its values:

    max_abs   max |y - z|
    SQNR      10 log10(Σ z² / Σ (y - z)²)      dB, the sums over all images
    cosine    <y, z> / (‖y‖ ‖z‖)               per image: 1 where only the scale differs

Sums are float64. What is kept per image is a few numbers, so memory does not grow with the maps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.arrays import Bools, Float32s, Float64s
from resdeploy.deploy.metrics.logits import decibels
from resdeploy.deploy.specs import TensorSpec


@dataclass(frozen=True)
class MapDistances:
    """One entry per image: see the module's docstring; `finite`: no value is NaN or infinite."""

    max_abs: Float64s
    noise: Float64s
    signal: Float64s
    cosine: Float64s
    finite: Bools

    @property
    def sqnr_db(self) -> float:
        """Over all images."""
        return decibels(float(self.signal.sum()), float(self.noise.sum()))


def map_distances(reference: Float32s, got: Float32s) -> MapDistances:
    """The distance of maps from the reference's, both (N, …)."""
    columns = np.array([_distance(z, y) for z, y in zip(reference, got, strict=True)])
    peak, noise, signal, cosine = columns.reshape(-1, 4).T
    return MapDistances(peak, noise, signal, cosine, np.isfinite(noise))


def _distance(reference: Float32s, got: Float32s) -> tuple[float, float, float, float]:
    """max_abs, noise, signal and cosine of one image, whose float64 copies are dropped at once."""
    z, y = reference.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        error = y - z
        signal = float(z @ z)
        norms = np.sqrt(signal * float(y @ y))
        cosine = float(y @ z) / norms if norms > 0 else 1.0
        return float(np.abs(error).max()), float(error @ error), signal, cosine


def join_map_distances(parts: Sequence[MapDistances]) -> MapDistances:
    """The distances of consecutive batches as one."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return MapDistances(*(np.concatenate(column) for column in columns))


def flat_width(outputs: Sequence[TensorSpec]) -> int:
    """Values in all maps of one image."""
    return sum(values_in(output) for output in outputs)


def values_in(output: TensorSpec) -> int:
    """Values in one image's map."""
    return int(np.prod([int(size) for size in output.shape[1:]]))


def split_maps(rows: Float32s, outputs: Sequence[TensorSpec]) -> Mapping[str, Float32s]:
    """Maps as rows (N, values) by name, from all of them in one row for each image."""
    found, start = {}, 0
    for output in outputs:
        end = start + values_in(output)
        found[output.name] = rows[:, start:end]
        start = end
    return found
