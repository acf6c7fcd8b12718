"""Lets each layer absorb the error of everything before it, in order, on quantized activations.

A layer that should give W·u + b for the float input u really reads û, quantized and carrying the
errors of all layers before it. With ε = u − û, both taken around their means μ and μ̂, the weights
closest to the layer's float output are

    W' = W + W·X·(C + λI)⁻¹      X = E[ε·ûᵀ],  C = E[û·ûᵀ]            (ridge regression of ε on û)
    b' = b + W·μ − s·Q·μ̂         s·Q: W' rounded by GPTQ with the moments C of û

This is layer-by-layer bias correction (Nagel et al. 2019) and GPTQ on the already quantized prefix,
with its correction for ε (Li et al. 2025, GPTAQ). Random errors ε are not predictable from û and
leave W alone; what is systematic, such as the shrinking by saturated ranges, is taken out before
it adds up through the network.

λ is chosen per layer by two-fold cross-validation over pictures, since with few pictures a wide
layer would fit noise: the candidate whose correction removes most of W·ε on the pictures it was
not fitted to, none at all when that is negative.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from resdeploy.calibration.bias_correction import corrected_bias
from resdeploy.calibration.draft import Draft, integers_for
from resdeploy.calibration.layers import Layer, bias_of, constants
from resdeploy.calibration.moments import sample_patches
from resdeploy.calibration.prefix import Prefix
from resdeploy.calibration.rounding import damped
from resdeploy.deploy.output import Progress, silent

# λ as a share of the mean of diag C.
_RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Wider layers get one candidate, the widest none: a solve costs K³, and with so many columns a
# smaller ridge would fit noise.
_WIDE, _WIDEST = 512, 2304
_WIDE_RIDGES = (3.0,)

Doubles = npt.NDArray[np.float64]
Reals = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float32]
_Half = tuple[Reals, Reals]
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Fold:
    """Moments over a part of the pictures: means (group, K), C and X (group, K, K)."""

    float_mean: Doubles
    mean: Doubles
    covariance: Doubles
    cross: Doubles


def absorb(
    draft: Draft,
    batches: Sequence[Floats],
    *,
    threads: int,
    seed: int = 0,
    progress: Progress = silent,
) -> Draft:
    """The draft with every layer's integers and bias fitted to what it really reads.

    Args:
        draft: with integers already, whose scales are kept.
        batches: inputs (N, 3, H, W), kept in memory as far as the network has read them.
    """
    float_side = Prefix(draft.model, batches, threads)
    quantized_side = Prefix(draft.activations_graph(), batches, threads)
    values = constants(draft.model)
    weights, biases = dict(draft.weights), dict(draft.biases)
    changed: dict[str, Floats] = {}
    for number, layer in enumerate(draft.layers):
        progress("absorbing errors", number, len(draft.layers))
        wanted = float_side.at(layer.input)
        read = quantized_side.at(quantized_side.read_by(layer.name), changed)
        half = max(1, len(batches) // 2)
        folds = _both(
            partial(_fold, layer, wanted[:half], read[:half], seed),
            partial(_fold, layer, wanted[half:] or wanted, read[half:] or read, seed + 1),
        )
        whole = _mean_of(folds)
        weight = layer.rows(values[layer.weight])
        target = weight + _correction(weight, folds, whole)
        integers = integers_for(
            layer,
            target.reshape(values[layer.weight].shape),
            whole.covariance,
            draft.target,
            scale=draft.weights[layer.weight].scale,
        )
        weights[layer.weight] = integers
        biases[layer.name] = corrected_bias(
            bias_of(layer, values),
            weight,
            layer.rows(integers.dequantize()),
            whole.float_mean,
            whole.mean,
        )
        changed = {layer.weight: integers.dequantize(), layer.bias: biases[layer.name]}
    return replace(draft, weights=weights, biases=biases)


def _fold(layer: Layer, wanted: Sequence[Floats], read: Sequence[Floats], seed: int) -> _Fold:
    """Moments of what the layer should read and what it reads, at the same positions."""
    # Two generators of one seed: the same positions on both sides.
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    u = np.concatenate([sample_patches(layer, batch, ours) for batch in wanted], axis=2)
    v = np.concatenate([sample_patches(layer, batch, theirs) for batch in read], axis=2)
    u_mean, v_mean = (part.mean(axis=2, dtype=np.float64) for part in (u, v))
    # In place: these are the largest arrays here. v becomes û around its mean, u becomes ε.
    v -= v_mean[:, :, None].astype(np.float32)
    u -= u_mean[:, :, None].astype(np.float32)
    u -= v
    transposed = v.transpose(0, 2, 1)
    count = np.float64(v.shape[2])
    return _Fold(u_mean, v_mean, v @ transposed / count, u @ transposed / count)


def _both(first: Callable[[], _T], second: Callable[[], _T]) -> tuple[_T, _T]:
    """The results of two calls made at the same time."""
    with ThreadPoolExecutor(1) as other:
        later = other.submit(second)
        return first(), later.result()


def _mean_of(folds: Sequence[_Fold]) -> _Fold:
    """Moments over both halves, taken around each half's own mean."""
    first, second = folds
    return _Fold(
        *(
            (getattr(first, name) + getattr(second, name)) / 2
            for name in ("float_mean", "mean", "covariance", "cross")
        )
    )


def _correction(weight: Doubles, folds: Sequence[_Fold], whole: _Fold) -> Doubles | float:
    """W·X·(C + λI)⁻¹ with the λ that does best on the other half; 0 when none helps."""
    if weight.shape[2] > _WIDEST:
        return 0.0
    ridges = _RIDGES if weight.shape[2] <= _WIDE else _WIDE_RIDGES
    # A ridge of 3 % leaves the systems well conditioned: float32 does, in half the time.
    halves = [
        (fold.covariance.astype(np.float32), (weight @ fold.cross).astype(np.float32))
        for fold in folds
    ]
    both = _both(
        partial(_gains, ridges, halves[0], halves[1]), partial(_gains, ridges, halves[1], halves[0])
    )
    gains = {ridge: sum(pair) for ridge, *pair in zip(ridges, *both, strict=True)}
    best = max(gains, key=gains.__getitem__)
    if gains[best] <= 0:
        return 0.0
    return _solve(whole.covariance, weight @ whole.cross, best).astype(np.float64)


def _gains(ridges: Sequence[float], fit: _Half, check: _Half) -> list[float]:
    """For each ridge what the correction fitted to one half removes from the other."""
    return [_removed(_solve(*fit, ridge), *check) for ridge in ridges]


def _solve(covariance: Reals, target: Reals, ridge: float) -> Reals:
    """T·(C + λI)⁻¹ for T (group, rows, K)."""
    system = damped(covariance, ridge)
    solved = np.linalg.solve(system, target.transpose(0, 2, 1))
    return np.asarray(solved.transpose(0, 2, 1))


def _removed(correction: Reals, covariance: Reals, target: Reals) -> float:
    """E|W·ε|² − E|W·ε − correction·û|² on a half of the pictures, with T = W·X of that half."""
    return float(
        2 * np.einsum("gok,gok->", target, correction, dtype=np.float64)
        - np.einsum("gok,gok->", correction @ covariance, correction, dtype=np.float64)
    )
