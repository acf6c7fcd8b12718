"""Bootstrap over images (Efron 1979) of figures that are made of sums over images.

One resample draws n of n images with replacement, which is a multinomial number of times for each
image; the figure is computed from the weighted sums. Intervals hold the middle 95 % of the draws.

* SQNR: 10 log10(Σ signal / Σ noise), dB.
* Rise of the expected calibration error: ECE of the deployment minus that of the reference, with
  the gaps of both summed over the same resampled images (paired), percentage points.
"""

import numpy as np

from resdeploy.deploy.arrays import Bools, Float64s
from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.metrics.logits import calibration_bins, calibration_error, decibels

_RESAMPLES = 1000
_DRAWN_AT_ONCE = 5_000_000  # weights in memory


def sqnr_interval(signal: Float64s, noise: Float64s, *, seed: int = 0) -> Interval:
    """95 % interval of the SQNR in dB; (N,) Σ z² and Σ (y − z)² of every image."""
    value = decibels(float(signal.sum()), float(noise.sum()))
    sums = _resampled_sums(np.stack([signal, noise], axis=1), seed)
    draws = [decibels(float(s), float(n)) for s, n in sums]
    return _around(value, np.asarray(draws))


def calibration_rise(
    reference_confidence: Float64s,
    reference_right: Bools,
    confidence: Float64s,
    right: Bools,
    *,
    seed: int = 0,
) -> tuple[float, Interval]:
    """How much the expected calibration error rose in points, with its 95 % interval."""
    before = calibration_error(reference_confidence, reference_right)
    rise = calibration_error(confidence, right) - before
    columns = np.concatenate(
        [
            calibration_bins(reference_confidence, reference_right),
            calibration_bins(confidence, right),
        ],
        axis=1,
    )
    bins = columns.shape[1] // 2
    gaps = 100 * np.abs(_resampled_sums(columns, seed)) / len(right)
    draws = gaps[:, bins:].sum(axis=1) - gaps[:, :bins].sum(axis=1)
    return rise, _around(rise, draws)


def _resampled_sums(columns: Float64s, seed: int) -> Float64s:
    """(N, M) values of images to (resamples, M) sums over resampled images."""
    images = len(columns)
    random = np.random.default_rng(seed)
    step = max(1, _DRAWN_AT_ONCE // images)
    parts = []
    for start in range(0, _RESAMPLES, step):
        rows = min(step, _RESAMPLES - start)
        weights = random.multinomial(images, np.full(images, 1 / images), rows)
        parts.append(weights @ columns)
    return np.asarray(np.concatenate(parts), np.float64)


def _around(value: float, draws: Float64s) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(min(float(low), value), max(float(high), value))
