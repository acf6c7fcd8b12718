"""Fits each layer in turn to what it really reads: the sequential fit of integers and biases.

A layer that should give W·u + b for the float input u really reads û, quantized and carrying the
errors of all layers before it. With ε = u − û, both taken around their means μ and μ̂, the weights
closest to the layer's float output are

    W' = W + W·X·(C + λI)⁻¹      X = E[ε·ûᵀ],  C = E[û·ûᵀ]            (ridge regression of ε on û)
    b' = b + W·μ − s·Q·μ̂         s·Q: W' rounded by GPTQ with the moments C of û

This is layer-by-layer bias correction (Nagel et al. 2019) and GPTQ behind the layers that are
quantized already, with its correction for ε (Li et al. 2025, GPTAQ). Random errors ε are not
predictable from û and leave W alone; what is systematic, such as the shrinking by saturated ranges,
is taken out before it adds up through the network.

Layers that stay float, such as the head, read what the others left. A ridge regression shrinks: û
is noisier than u, and the layer behind takes out what is lost, all but what the last fit loses. So
with the centred outputs y = W·u and ŷ = W·û these layers get

    W' = a·W      a = E[y·ŷ] / E[ŷ·ŷ]      b' = b + W·μ − W'·μ̂

one number a, which a few images tell (MobileNetV2, 100 images: logits 1.2 to 2.5 % too small).

λ is chosen per layer by two-fold cross-validation over images, since with few images a wide
layer would fit noise: the candidate whose correction removes most of W·ε on the images it was
not fitted to, none at all when that is negative.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from resdeploy.calibration.graph.layers import Layer, bias_of, constants, layers
from resdeploy.calibration.graph.qdq import QuantizedWeight
from resdeploy.calibration.observe.moments import WIDEST, gram
from resdeploy.calibration.weights.bias_correction import corrected_bias
from resdeploy.calibration.weights.draft import Draft, integers_for
from resdeploy.calibration.weights.gptq import damped
from resdeploy.calibration.weights.partial_run import Kept, PartialRun
from resdeploy.deploy.arrays import Float32s, Float64s, Floats
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.system.memory import return_freed_memory

# λ as a share of the mean of diag C.
_RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Wider layers get one candidate, the widest none: a solve costs K³, and with so many columns a
# smaller ridge would fit noise.
_WIDE, _WIDEST = 512, 2304
_WIDE_RIDGES = (3.0,)
# Largest values of a tensor that float16 holds well, images with larger ones considered.
_HALF_LEAST, _HALF_MOST = 2.0**-4, 2.0**12

_Half = tuple[Float32s, Float32s]
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Fold:
    """Moments over a part of the images: means (group, K); C and X, each (group, K, K).

    `covariance` is C, None of layers wider than `moments.WIDEST`; `cross` is X, None of layers too
    wide to correct.
    """

    float_mean: Float64s
    mean: Float64s
    covariance: Float64s | None = None
    cross: Float64s | None = None


def sequential_fit(
    draft: Draft,
    batches: Sequence[Float32s],
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
    return_freed_memory()
    float_side = PartialRun(draft.model, batches, threads, halves=_held_by_half(draft))
    quantized_side = PartialRun(draft.activations_graph(), batches, threads)
    values = constants(draft.model)
    weights, biases, floats = dict(draft.weights), dict(draft.biases), dict(draft.floats)
    changed: dict[str, Float32s] = {}
    rounded = {layer.name for layer in draft.layers}
    fitted = [layer for layer in layers(draft.model) if layer.name not in draft.float_nodes]
    for number, layer in enumerate(fitted):
        progress("fitting layer by layer", number, len(fitted))
        both = (
            float_side.at(layer.input),
            quantized_side.at(quantized_side.read_by(layer.name), changed),
        )
        if layer.name in rounded:
            folds = _halves(layer, *both, seed)
            integers, bias = _fitted(draft, layer, values, folds)
            weights[layer.weight], biases[layer.name] = integers, bias
            changed = {layer.weight: integers.dequantize(), layer.bias: bias}
        else:
            floats[layer.weight], biases[layer.name] = _float_layer(layer, values, *both)
            changed = {layer.weight: floats[layer.weight], layer.bias: biases[layer.name]}
        del both  # nothing here holds on to what a layer reads while the next piece runs
    return replace(draft, weights=weights, biases=biases, floats=floats)


def _float_layer(
    layer: Layer, values: Mapping[str, Float32s], wanted: Sequence[Kept], read: Sequence[Kept]
) -> tuple[Float32s, Float32s]:
    """Weight and bias of a layer that stays float, for the mean and the size of what it reads."""
    weight = layer.rows(values[layer.weight])
    u, v = (_patches(layer, batches, np.random.default_rng(0)) for batches in (wanted, read))
    means = [part.mean(axis=2, dtype=np.float64) for part in (u, v)]
    ours, theirs = (
        weight @ (part - mean[:, :, None]) for part, mean in zip((u, v), means, strict=True)
    )
    size = float((theirs * theirs).sum())
    gain = float((ours * theirs).sum()) / size if size > 0 else 1.0
    bias = corrected_bias(bias_of(layer, values), weight, gain * weight, *means)
    return np.asarray(gain * values[layer.weight], np.float32), bias


def _held_by_half(draft: Draft) -> set[str]:
    """Tensors whose values float16 holds with 11 bits: neither too large nor too small."""
    peaks = {tensor: max(-r.low, r.high) for tensor, r in draft.ranges.items()}
    return {tensor for tensor, peak in peaks.items() if _HALF_LEAST < peak < _HALF_MOST}


def _halves(
    layer: Layer, wanted: Sequence[Kept], read: Sequence[Kept], seed: int
) -> tuple[_Fold, _Fold]:
    """Moments over the two halves of the images."""
    half = max(1, len(wanted) // 2)
    return _both(
        partial(_fold, layer, wanted[:half], read[:half], seed),
        partial(_fold, layer, wanted[half:] or wanted, read[half:] or read, seed + 1),
    )


def _fitted(
    draft: Draft, layer: Layer, values: Mapping[str, Float32s], folds: tuple[_Fold, _Fold]
) -> tuple[QuantizedWeight, Float32s]:
    """One layer's integers and bias."""
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
    rounded = layer.rows(integers.dequantize())
    old = bias_of(layer, values)
    return integers, corrected_bias(old, weight, rounded, whole.float_mean, whole.mean)


def _fold(layer: Layer, wanted: Sequence[Kept], read: Sequence[Kept], seed: int) -> _Fold:
    """Moments of what the layer should read and what it reads, at the same positions."""
    # Two generators of one seed: the same positions on both sides.
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    u, v = _both(partial(_patches, layer, wanted, ours), partial(_patches, layer, read, theirs))
    u_mean, v_mean = (part.mean(axis=2, dtype=np.float64) for part in (u, v))
    if layer.columns > WIDEST:
        return _Fold(u_mean, v_mean)
    # In place: these are the largest arrays here. v becomes û around its mean, u becomes ε.
    v -= v_mean[:, :, None].astype(np.float32)
    count = np.float64(v.shape[2])
    if layer.columns > _WIDEST:
        return _Fold(u_mean, v_mean, gram(v) / count)
    u -= u_mean[:, :, None].astype(np.float32)
    u -= v
    covariance, cross = _both(partial(gram, v), lambda: u @ v.transpose(0, 2, 1))
    return _Fold(u_mean, v_mean, covariance / count, cross / count)


def _patches(layer: Layer, batches: Sequence[Kept], random: np.random.Generator) -> Float32s:
    return np.concatenate([batch.patches(layer, random) for batch in batches], axis=2)


def _both(first: Callable[[], _T], second: Callable[[], _T]) -> tuple[_T, _T]:
    """The results of two calls made at the same time."""
    with ThreadPoolExecutor(1) as other:
        later = other.submit(second)
        return first(), later.result()


def _mean_of(folds: tuple[_Fold, _Fold]) -> _Fold:
    """Moments over both halves, taken around each half's own mean."""
    first, second = folds
    return _Fold(
        (first.float_mean + second.float_mean) / 2,
        (first.mean + second.mean) / 2,
        _middle(first.covariance, second.covariance),
        _middle(first.cross, second.cross),
    )


def _middle(first: Float64s | None, second: Float64s | None) -> Float64s | None:
    return None if first is None or second is None else (first + second) / 2


def _correction(weight: Floats, folds: Sequence[_Fold], whole: _Fold) -> Float64s | float:
    """W·X·(C + λI)⁻¹ with the λ that does best on the other half; 0 when none helps."""
    if whole.covariance is None or whole.cross is None:
        return 0.0
    # A ridge of 3 % leaves the systems well conditioned: float32 does, in half the time.
    first, second = (
        (fold.covariance.astype(np.float32), (weight @ fold.cross).astype(np.float32))
        for fold in folds
        if fold.covariance is not None and fold.cross is not None
    )

    def gain(ridge: float) -> float:
        """What the correction fitted to one half removes from the other, for both halves."""
        there = partial(_gain, ridge, first, second)
        return sum(_both(there, partial(_gain, ridge, second, first)))

    best, most = _highest(_RIDGES if weight.shape[2] <= _WIDE else _WIDE_RIDGES, gain)
    if most <= 0:
        return 0.0
    return _solve(whole.covariance, weight @ whole.cross, best).astype(np.float64)


def _highest(candidates: Sequence[float], value: Callable[[float], float]) -> tuple[float, float]:
    """The candidate of the highest value, and the value: climbed to from the middle.

    The gain of a ridge has one peak: a smaller one fits noise, a larger one corrects too little.
    """
    at = len(candidates) // 2
    top = value(candidates[at])
    for step in (1, -1):
        moved = False
        while 0 <= at + step < len(candidates):
            found = value(candidates[at + step])
            if not found > top:
                break
            at, top, moved = at + step, found, True
        if moved:
            break
    return candidates[at], top


def _gain(ridge: float, fit: _Half, check: _Half) -> float:
    return _removed(_solve(*fit, ridge), *check)


def _solve(covariance: Floats, target: Floats, ridge: float) -> Floats:
    """T·(C + λI)⁻¹ for T (group, rows, K)."""
    system = damped(covariance, ridge)
    solved = np.linalg.solve(system, target.transpose(0, 2, 1))
    return np.asarray(solved.transpose(0, 2, 1))


def _removed(correction: Floats, covariance: Floats, target: Floats) -> float:
    """E|W·ε|² − E|W·ε − correction·û|² on a half of the images, with T = W·X of that half."""
    return float(
        2 * np.einsum("gok,gok->", target, correction, dtype=np.float64)
        - np.einsum("gok,gok->", correction @ covariance, correction, dtype=np.float64)
    )
