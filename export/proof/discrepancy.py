"""How far two contracts' statistics are from those stored, and which of two is nearer.

For each layer l and image i there is a vector z (`batchnorm_statistics`); its mean over the images
would be zero under the contract of the training. All that is needed of two contracts A and B are
the products between images, G_AB[i, j] = <z_i of A, z_j of B>. Means over i ≠ j are without bias,
and drawing the images again (bootstrap) is drawing rows and columns again, never the same image
against itself.

    D_l      = mean G_AA                                      distance of A from what is stored
    score    = exp(mean_l ln(max(D_l, 0) + τ)) - τ            a layer counts by how many times it is
                                                              farther: none drowns the others
    Δ        = z of B - z of A                                what changes from A to B
    effect_l = mean <Δ_i, Δ_j>
    position = - Σ_l w_l mean <z_i of A, Δ_j> / Σ_l w_l effect_l,   w_l = 1 / (min(D_A, D_B) + τ)

`position` is where the stored statistics lie on the way from A (0) to B (1). It is a least-squares
fit along that way, so it looks only at channels and layers that the alternative changes. Where
the images differ a little from those of the training, it is off by about √(distance / effect)
times the cosine between the two: `strength` = mean_l w_l effect_l says how far that is from
mattering.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.arrays import Float32s, Float64s

_TAU = 0.003  # nats: a layer as near as this is as near as training's own moving average gets
_RESAMPLES = 300
_FAR = 20.0  # nats: beyond it all are equally wrong, and a square would overflow the mean
_ANYWHERE = 1000.0


@dataclass(frozen=True)
class Score:
    """The distance of one contract with its 95 % bootstrap interval, in nats per channel."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Where the stored statistics lie between two contracts: 0 is the first, 1 the second.

    Attributes:
        position, low, high: with the 95 % bootstrap interval over images.
        strength: how much the second changes, in units of how far the nearer one is.
        effect: what the second changes, in nats per channel of the layer it changes most.
    """

    position: float
    low: float
    high: float
    strength: float
    effect: float


def products(first: Sequence[Float32s], second: Sequence[Float32s]) -> Float64s:
    """(L, n, n): products between images under two contracts, for each layer."""
    return np.stack([a @ b.T for a, b in zip(first, second, strict=True)]).astype(np.float64)


def score(own: Float64s, *, seed: int = 0) -> Score:
    """The score of a contract from its own `products`."""
    every = np.ones((1, own.shape[1]))
    drawn = np.quantile(_scores(_means(own, _resamples(own.shape[1], seed))), (0.025, 0.975))
    return Score(float(_scores(_means(own, every))[0]), float(drawn[0]), float(drawn[1]))


def compare(first: Float64s, second: Float64s, cross: Float64s, *, seed: int = 0) -> Comparison:
    """Contract A against B from G_AA, G_BB and G_AB, each (L, n, n)."""
    both = (cross + cross.transpose(0, 2, 1)) / 2
    towards, changed = both - first, first + second - 2 * both
    count = first.shape[1]
    every = np.ones((1, count))
    distances = np.minimum(_means(first, every)[0], _means(second, every)[0])
    weights = 1 / (np.maximum(distances, 0) + _TAU)
    effects = _means(changed, every)[0]
    touched = np.abs(changed).max(axis=(1, 2)) > 1e-9
    # the weights are the same for every resample, so the layers can be added up before
    summed = np.stack([np.tensordot(weights, part, 1) for part in (towards, changed)])
    low, high = np.quantile(_ratio(_means(summed, _resamples(count, seed))), (0.025, 0.975))
    return Comparison(
        position=float(_ratio(_means(summed, every))[0]),
        low=float(low),
        high=float(high),
        strength=float((weights * effects)[touched].mean()) if touched.any() else 0.0,
        effect=float(effects.max()),
    )


def _ratio(means: Float64s) -> Float64s:
    """(B, 2) of what lies towards the second contract and of what it changes -> (B,)."""
    towards, changed = means.T
    # an effect that sampling alone explains comes out near zero or below it: then anything goes
    positions: Float64s = -towards / np.maximum(changed, 1e-12)
    return np.clip(positions, -_ANYWHERE, _ANYWHERE)


def _resamples(count: int, seed: int) -> Float64s:
    """(B, n): how often each image is drawn."""
    random = np.random.default_rng(seed)
    return random.multinomial(count, np.full(count, 1 / count), _RESAMPLES).astype(np.float64)


def _means(grams: Float64s, drawn: Float64s) -> Float64s:
    """(B, L): the mean over pairs of different images, for each resample."""
    diagonal = np.einsum("lii->li", grams)
    total = np.einsum("bi,lij,bj->bl", drawn, grams, drawn, optimize=True)
    own = drawn**2
    pairs = drawn.sum(axis=1) ** 2 - own.sum(axis=1)
    means: Float64s = (total - own @ diagonal.T) / pairs[:, None]
    return means


def _scores(distances: Float64s) -> Float64s:
    inside = np.clip(distances, 0, _FAR) + _TAU
    scores: Float64s = np.exp(np.log(inside).mean(axis=1)) - _TAU
    return scores
