"""The drop of top-1 from what the logits say: a fraction of the images that counting needs.

For image i with true class y_i let r_i be the reference's logits, c_i the deployment's,
e_i = c_i − r_i, and a_i, b_i the answers argmax r_i and argmax c_i. A conditional logit
(McFadden 1974) is fitted by maximum likelihood to the true classes:

    p(k | i) ∝ exp(α r_ik / s_r + γ e_ik / s_e)

(rows centred; s_r, s_e standard deviations; a ridge of 0.1 draws α toward 1, one of 1.0 draws γ
toward 0). That is temperature scaling (Guo et al. 2017) with γ besides, which says whether the
error itself knows something of the truth. Then

    drop = 1/n Σ_i d_i        d_i = p(a_i | i) − p(b_i | i)

so a changed answer counts with how much less likely it is, not with ±1. The score equation of γ
calibrates p in the direction of the errors, so the expectation is that of the count as far as the
labels can tell (model-assisted estimation: Särndal, Swensson & Wretman 1992).

The standard error follows from influence functions: with s_i the score of image i, H the
information and θ = (α, γ),

    infl_i = d_i − drop + n s_iᵀ H⁻¹ ∂drop/∂θ
    var = Var(infl)/n + 2 κ size²/n² + σ² f/n + (τ f)²

κ imagined changes stand each way, as in the interval of the count (`metrics.intervals`), each of
the largest size seen: |d_i|, or p(first) − p(second) among the 5 % smallest margins; but of 0.2 at
least. p is a model, and more images do not make it true: f is the share of answers that changed,
σ = 0.15 by how much d_i may be wrong for each of them, τ = 0.08 by how much on average over all.
The three sizes are from labels of a model that also has a scale and a bias for each class, fitted
to the true ones: with 2 to 4 changes among 367 answers of ResNet-18 d_i is off by 0.2 to 0.3
(docs/gate.md says how often intervals hold the drop with and without them).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from resdeploy.deploy.arrays import Float32s, Float64s, Indices
from resdeploy.deploy.metrics.intervals import Z95, Interval, Paired

Estimator = Literal["count", "calibrated"]

_LEAST_IMAGES = 30
_RIDGE = np.array([0.1, 1.0])
_START = np.array([1.0, 0.0])
_STEPS = 40
_CLOSE = 0.05  # share of images whose margins count as small
_MISFIT = 0.08  # τ
_MISFIT_OF_ONE = 0.15  # σ
_LEAST_CHANGE = 0.2  # size of an imagined change


@dataclass(frozen=True)
class DropEstimate:
    """A drop in percentage points, its 95 % interval and how it was found.

    `floor` is the half width of the interval that no number of images narrows. `remark` says why
    the count was used although logits were there.
    """

    drop: float
    interval: Interval
    estimator: Estimator
    floor: float = 0.0
    remark: str | None = None


@dataclass(frozen=True)
class PairedLogits:
    """Logits (n, K) of reference and deployment for the same images, and the true classes (n,)."""

    reference: Float32s
    got: Float32s
    truth: Indices


def choose_estimate(
    counts: Paired, count_interval: Interval, calibrated: DropEstimate | None
) -> DropEstimate:
    """The sharper of the two; where they contradict each other, the count within both intervals.

    They do where the drop by the logits is outside the interval of the count.
    """
    counted = DropEstimate(counts.drop, count_interval, "count")
    if calibrated is None:
        return counted
    if not count_interval.low <= calibrated.drop <= count_interval.high:
        both = Interval(
            min(count_interval.low, calibrated.interval.low),
            max(count_interval.high, calibrated.interval.high),
        )
        remark = (
            f"the logits say {calibrated.drop:.2f} points, which the count contradicts: the "
            "interval holds both"
        )
        return replace(counted, interval=both, remark=remark)
    return calibrated if _width(calibrated.interval) < _width(count_interval) else counted


def calibrated_drop(logits: PairedLogits, *, reach: float = 1.0) -> DropEstimate | None:
    """The model-assisted estimate; `reach` is κ, as for the count's interval.

    None where it cannot be had: fewer than 30 images, a logit that is not finite, or a reference
    that is always right or always wrong, which leaves α open.
    """
    reference, got = logits.reference.astype(np.float64), logits.got.astype(np.float64)
    n = len(reference)
    right = int((reference.argmax(axis=1) == logits.truth).sum())
    finite = np.isfinite(reference).all() and np.isfinite(got).all()
    if n < _LEAST_IMAGES or not finite or right in (0, n):
        return None
    features = _features(reference, got)
    p, scores, information, mean = _fit(features, logits.truth)
    rows, was, now = np.arange(n), reference.argmax(axis=1), got.argmax(axis=1)
    changes = p[rows, was] - p[rows, now]
    drop = float(changes.mean())
    gradient = (
        p[rows, was, None] * (features[rows, was] - mean)
        - p[rows, now, None] * (features[rows, now] - mean)
    ).mean(axis=0)
    influence = changes - drop + n * (scores @ np.linalg.solve(information, gradient))
    imagined = 2 * reach * _largest_change(p, reference, changes) ** 2 / n**2
    changed = float((was != now).mean())
    misfit = _MISFIT * changed
    of_each = _MISFIT_OF_ONE**2 * changed / n
    half = 100 * Z95 * math.sqrt(float(influence.var(ddof=1)) / n + imagined + of_each + misfit**2)
    interval = Interval(100 * drop - half, 100 * drop + half)
    return DropEstimate(100 * drop, interval, "calibrated", floor=100 * Z95 * misfit)


def _features(reference: Float64s, got: Float64s) -> Float64s:
    """(n, K, 2): centred reference logits and errors, each divided by its standard deviation."""
    error = got - reference
    centred = [values - values.mean(axis=1, keepdims=True) for values in (reference, error)]
    return np.stack([values / (values.std() + 1e-12) for values in centred], axis=-1)


def _fit(features: Float64s, truth: Indices) -> tuple[Float64s, Float64s, Float64s, Float64s]:
    """Newton's method: p (n, K), scores (n, 2), information (2, 2), mean features (n, 2)."""
    rows = np.arange(len(features))
    theta = _START.copy()
    for _ in range(_STEPS):
        z = features @ theta
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        mean = np.einsum("nk,nkp->np", p, features)
        scores = features[rows, truth] - mean
        products = [
            [
                float((p * features[..., i] * features[..., j]).sum() - mean[:, i] @ mean[:, j])
                for j in range(2)
            ]
            for i in range(2)
        ]
        information = np.array(products) + np.diag(_RIDGE)
        step = np.linalg.solve(information, scores.sum(axis=0) - _RIDGE * (theta - _START))
        largest = float(np.abs(step).max())
        if largest < 1e-7:
            break
        theta = theta + step * min(1.0, 1.0 / largest)
    return p, scores, information, mean


def _largest_change(p: Float64s, reference: Float64s, changes: Float64s) -> float:
    """The largest |d_i|, or p(first) − p(second) among the smallest margins, or the least size."""
    top = np.partition(reference, -2, axis=1)[:, -2:]
    close = np.argsort(top[:, 1] - top[:, 0])[: max(1, math.ceil(_CLOSE * len(p)))]
    first_two = np.partition(p[close], -2, axis=1)[:, -2:]
    seen = float((first_two[:, 1] - first_two[:, 0]).max()), float(np.abs(changes).max())
    return max(*seen, _LEAST_CHANGE)


def _width(interval: Interval) -> float:
    return interval.high - interval.low
