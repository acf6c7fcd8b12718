"""Tests on figures with a limit: one-sided p-values, and the score test of a paired drop.

* Tango's score test (Tango 1998): of n images b were lost and c gained; is the true drop larger
  than δ? With q the likelihood's estimate of P(gained) under a drop of δ,

      Z = (b − c − n δ) / sqrt(n (2 q + δ (1 − δ)))
      q = (sqrt(B² − 4 A C) − B) / (2 A)
      A = 2 n,   B = −b − c + (2 n − b + c) δ,   C = −c δ (1 − δ)

  The 95 % interval holds every δ with |Z| <= 1.96. It is sound where a class has few images.
* Any other figure with an interval is taken as normal on the side of the limit.
"""

import math

from resdeploy.deploy.metrics.intervals import Z95, Interval, Paired

_HALVINGS = 50


def score_p(counts: Paired, limit: float) -> float:
    """One-sided p of "the drop is at most `limit` points"; small values speak for a larger drop."""
    return _upper_tail(_tango(counts, limit / 100))


def score_interval(counts: Paired) -> Interval:
    """Tango's 95 % interval of the drop in points."""
    drop = counts.drop / 100
    low = _root(counts, -1.0, drop, Z95)
    high = _root(counts, drop, 1.0, -Z95)
    return Interval(100 * low, 100 * high)


def beyond_p(value: float, interval: Interval, limit: float) -> float:
    """One-sided p of "the figure is at most `limit`", from its 95 % interval; 0.025 at its end."""
    error = (value - interval.low) / Z95
    if error <= 0:
        return 0.0 if value > limit else 1.0
    return _upper_tail((value - limit) / error)


def _root(counts: Paired, low: float, high: float, z: float) -> float:
    """The δ in [low, high] where Z falls through `z`; Z falls as δ grows."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _tango(counts, middle) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _tango(counts: Paired, delta: float) -> float:
    n, b, c = counts.images, counts.lost, counts.gained
    a2 = 2.0 * n
    a1 = -b - c + (2 * n - b + c) * delta
    a0 = -c * delta * (1 - delta)
    q = (math.sqrt(max(0.0, a1 * a1 - 4 * a2 * a0)) - a1) / (2 * a2)
    variance = n * (2 * q + delta * (1 - delta))
    difference = b - c - n * delta
    if variance <= 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / math.sqrt(variance)


def _upper_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))
