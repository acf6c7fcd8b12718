"""Rounds a layer's weights so that the layer's output, not the weights, comes out closest: GPTQ.

With E = W − s·Q the rounding error of one output channel (a row) and C the second moments of the
layer's input, the output's squared error is E·C·Eᵀ. Factor

    C = R·D·Rᵀ,   R upper triangular with ones on the diagonal, D diagonal:
    E·C·Eᵀ = Σ_k D_k (e_k + Σ_{j<k} e_j R_jk)²

so taking columns in order and rounding w_k + Σ_{j<k} e_j R_jk in place of w_k makes every term as
small as the grid allows: each column absorbs the errors before it. This is Frantar et al. 2022
(GPTQ) in the form that Chee et al. 2023 (QuIP, theorem 6) prove equal to it; it needs one Cholesky
factor and no inverse. C gets 1 % of its mean diagonal added (GPTQ's damping), and columns are taken
by falling C_kk, so that the errors of what matters most have most columns left to go to.

A layer is worked on in about 30·group·K² bytes, two thirds of it where K is over 1024: 0.4 GB for a
3×3 convolution over 512 channels.

On x86 without VNNI two neighbouring weights must fit a sum (`saturation`): the later of the two is
rounded within what the earlier one leaves, and the rest of its error is absorbed like any other.
"""

import numpy as np
import numpy.typing as npt

from resdeploy.calibration.graph.layers import Layer
from resdeploy.calibration.observe.moments import WIDE
from resdeploy.calibration.ranges.ranges import LARGEST_INT8
from resdeploy.calibration.weights.saturation import Pairs
from resdeploy.deploy.arrays import Float64s, Floats

_PAIR_LIMIT = 128
_DAMPING = 0.01
_BLOCK = 64


def gptq(
    weight: Float64s, covariance: Floats, scale: Float64s, pairs: Pairs | None = None
) -> Float64s:
    """Integers Q (group, rows, K) with s·Q in place of the weight (group, rows, K).

    Args:
        covariance: C, (group, K, K), positive semidefinite up to rounding; factored in float32
            where it is wider than `moments.WIDE`.
        scale: s, (group, rows), positive.
        pairs: columns that the CPU's kernel adds in 16 bits, None for kernels that do not.
    """
    columns = weight.shape[2]
    order = np.argsort(-np.einsum("gkk->gk", covariance), axis=1, kind="stable")
    if pairs is not None:
        # Partners are found by column number: one order for all groups.
        order = np.broadcast_to(order[:1], order.shape)
    factor = _unit_upper(covariance, order)
    ordered = np.take_along_axis(weight, order[:, None, :], axis=2)
    partners = None if pairs is None else _partners(pairs, order[0])
    integers = np.zeros_like(ordered)
    errors = np.zeros_like(ordered)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        absorbed = errors[:, :, :start] @ factor[:, :start, start:stop]
        for k in range(start, stop):
            recent = errors[:, :, start:k] @ factor[:, start:k, k, None]
            wanted = (ordered[:, :, k] + absorbed[:, :, k - start] + recent[:, :, 0]) / scale
            low, high = _limits(integers, partners, k)
            integers[:, :, k] = np.rint(wanted).clip(low, high)
            errors[:, :, k] = ordered[:, :, k] - scale * integers[:, :, k]
    return np.take_along_axis(integers, np.argsort(order, axis=1)[:, None, :], axis=2)


def gptq_bytes(layer: Layer) -> int:
    """Memory that rounding one layer takes."""
    return (20 if layer.columns > WIDE else 30) * layer.group * layer.columns**2


def nearest(weight: Floats, scale: Float64s) -> Floats:
    """Plain rounding: integers Q (group, rows, K) of the weight (group, rows, K), of its type."""
    integers = weight / scale[:, :, None].astype(weight.dtype)
    np.rint(integers, out=integers)
    return np.asarray(np.clip(integers, -LARGEST_INT8, LARGEST_INT8, out=integers))


def damped(covariance: Floats, share: float = _DAMPING) -> Floats:
    """C + share · mean(diag C) · I, per group; C = 0 becomes the identity."""
    return _damp(covariance.copy(), share)


def _damp(covariance: Floats, share: float) -> Floats:
    """`damped` in place."""
    mean = np.einsum("gkk->g", covariance) / covariance.shape[1]
    diagonal = np.arange(covariance.shape[1])
    covariance[:, diagonal, diagonal] += np.where(mean > 0, share * mean, 1)[:, None]
    return covariance


def _unit_upper(covariance: Floats, order: npt.NDArray[np.intp]) -> Floats:
    """R of the damped C = R·D·Rᵀ, columns in `order` (group, K): the Cholesky factor of C read
    backwards, columns scaled."""
    if covariance.shape[1] > WIDE:
        covariance = covariance.astype(np.float32, copy=False)
    group = np.arange(len(order))[:, None, None]
    ordered = _damp(covariance[group, order[:, :, None], order[:, None, :]], _DAMPING)
    upper = np.linalg.cholesky(ordered[:, ::-1, ::-1])[:, ::-1, ::-1]
    upper /= np.einsum("gkk->gk", upper)[:, None, :].copy()
    return upper


def _partners(pairs: Pairs, order: npt.NDArray[np.intp]) -> list[list[int]]:
    """For each column in its order of rounding, the partners that are rounded before it."""
    place = np.argsort(order)
    before: list[list[int]] = [[] for _ in order]
    for first, second in zip(place[pairs[0]].tolist(), place[pairs[1]].tolist(), strict=True):
        before[max(first, second)].append(min(first, second))
    return before


def _limits(
    integers: Float64s, partners: list[list[int]] | None, k: int
) -> tuple[Float64s | int, Float64s | int]:
    """Smallest and largest integer that may stand in column k."""
    low: Float64s | int = -LARGEST_INT8
    high: Float64s | int = LARGEST_INT8
    for partner in partners[k] if partners else ():
        other = integers[:, :, partner]
        low = np.maximum(low, -_PAIR_LIMIT - np.minimum(other, 0))
        high = np.minimum(high, _PAIR_LIMIT - np.maximum(other, 0))
    return low, high
