"""What a finite number of images says about a deployment, from first principles.

Every comparison is paired: the same images through the reference and through the deployment.
Of n images, let b be those only the reference gets right (lost) and c those only the deployment
gets right (gained). The drop of top-1 accuracy is d = (b - c) / n; all other images say nothing
about it.

* McNemar's exact test (McNemar 1947): without a true drop, b ~ Binomial(b + c, 1/2).
* Paired bootstrap (Efron 1979): resampling the n images is drawing (b*, c*, rest*) from a
  multinomial with the observed frequencies, and the interval holds the middle 95 % of
  (b* - c*) / n. Where no image flipped, plain resampling would claim certainty from ten
  images; so κ imagined images stand in each of the cells b and c, with κ = 1 as in the
  interval of Bonett & Price (2012).
* Numerically equal networks need fewer images. An answer can flip only where the error of the two
  largest logits' difference, at most 2 max|y - z|, reaches the reference's margin. If even the
  largest error is below the smallest margin m seen, then taking the density of margins below m as
  constant, a new image flips with probability at most reach = 2 max|y - z| / m times that of a
  margin below m. So κ = min(1, reach), and bounds on agreement shrink alike.
* Proportions (accuracy, agreement) have Wilson's score interval (Wilson 1927).
* Several classes at once: Holm's step-down correction (Holm 1979).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.arrays import Bools
from resdeploy.deploy.metrics.logits import Answers, Differences

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
RESAMPLES = 10_000

_MOST_IMAGES = 10_000_000


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Paired right and wrong answers: `lost` = b, `gained` = c of `images` = n."""

    images: int
    lost: int
    gained: int

    @property
    def drop(self) -> float:
        """(b - c) / n in percentage points; negative when the deployment is better."""
        return 100 * (self.lost - self.gained) / self.images


def paired(reference_right: Bools, right: Bools) -> Paired:
    """Count lost and gained images."""
    lost, gained = (reference_right & ~right).sum(), (right & ~reference_right).sum()
    return Paired(len(right), int(lost), int(gained))


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided p of McNemar's test: 2 P(Binomial(b + c, 1/2) <= min(b, c)), at most 1."""
    discordant = lost + gained
    term = tail = 1
    for k in range(min(lost, gained)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    p: float = 2 * tail / 2**discordant  # whole numbers: exact, nothing overflows
    return min(1.0, p)


def drop_interval(
    counts: Paired, *, reach: float = 1.0, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Paired-bootstrap 95 % interval of the drop in points; see the module's docstring.

    Args:
        counts: paired answers.
        resamples: draws of the bootstrap.
        reach: min(1, 2 max|y - z| / smallest margin), from `reach`; 1 where logits are not known.
        seed: the same seed gives the same interval on every machine.
    """
    n, rest = counts.images, counts.images - counts.lost - counts.gained
    weights = np.array([counts.lost + reach, counts.gained + reach, rest])
    draws = np.random.default_rng(seed).multinomial(n, weights / weights.sum(), resamples)
    low, high = np.quantile(100 * (draws[:, 0] - draws[:, 1]) / n, (0.025, 0.975))
    return Interval(min(float(low), counts.drop), max(float(high), counts.drop))


def wilson_interval(successes: float, n: float) -> Interval:
    """Wilson's score interval of a proportion, in percent.

    The bounds solve (p̂ - p)² = z² p (1 - p) / n for p.
    """
    share, z2 = successes / n, Z95**2
    centre = share + z2 / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = ((centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n))
    return Interval(100 * max(0.0, low), 100 * min(1.0, high))


def agreement_interval(agreeing: int, n: int, *, reach: float = 1.0) -> Interval:
    """Wilson's interval of the agreement in percent, narrower for numerically equal networks."""
    interval = wilson_interval(agreeing, n)
    if agreeing < n:
        return interval
    return Interval(100 - reach * (100 - interval.low), 100.0)


def reach(reference: Answers, found: Differences) -> float:
    """How far the largest error reaches into the smallest margin, from 0 (not at all) to 1."""
    worst, smallest = 2 * float(found.max_abs.max()), float(reference.margin.min())
    if worst == 0:
        return 0.0
    if not math.isfinite(worst) or not smallest > 0:
        return 1.0
    return min(1.0, worst / smallest)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: p_(i) -> max over j <= i of (m - j + 1) p_(j), at most 1."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def images_to_decide_drop(counts: Paired, limit: float, *, reach: float = 1.0) -> int | None:
    """Images needed until the drop's interval lies on one side of `limit`, at today's rates.

    The interval's half width at N images is about z sqrt(v N + 2κ) / N, with v the variance of
    one paired difference. None where no reachable number decides: the drop is the limit.
    """
    n, drop = counts.images, counts.drop / 100
    variance = (counts.lost + counts.gained) / n - drop**2
    distance = abs(limit / 100 - drop)

    def decided(images: int) -> bool:
        return Z95 * math.sqrt(max(0, variance) * images + 2 * reach) < distance * images

    return _smallest(decided, n)


def images_to_decide(
    value: float, interval: Interval, n: int, limit: float, *, floor: float = 0.0
) -> int | None:
    """Images needed until an interval around `value` excludes `limit`, if it narrows as 1/√n.

    `floor` is the half width that remains with any number of images.
    """
    half, distance = (interval.high - interval.low) / 2, abs(limit - value)
    narrowing, room = half**2 - floor**2, distance**2 - floor**2
    if room <= 0 or narrowing > room * _MOST_IMAGES / n:
        return None
    return max(n + 1, math.ceil(n * narrowing / room))


def images_to_decide_share(share: float, n: int, limit: float) -> int | None:
    """Images needed until Wilson's interval of `share` (percent) excludes `limit` (percent)."""

    def decided(images: int) -> bool:
        interval = wilson_interval(share / 100 * images, images)
        return interval.low >= limit or interval.high < limit

    return _smallest(decided, n)


def _smallest(decided: Callable[[int], bool], above: int) -> int | None:
    """The smallest number > `above` for which the monotone `decided` holds, or None."""
    low, high = above, max(2, 2 * above)
    while not decided(high):
        low, high = high, 2 * high
        if high > _MOST_IMAGES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
