"""Which int8 weights the fast x86 kernel without VNNI computes exactly.

That kernel multiplies unsigned activations x by signed weights w with `vpmaddubsw`, which adds two
neighbouring products in 16 bits and saturates. Activations may be anything in 0…255, so a pair
(w₁, w₂) is exact for every image if and only if

    max(w₁, 0) + max(w₂, 0) ≤ 128    and    min(w₁, 0) + min(w₂, 0) ≥ −128         (255·128 < 2¹⁵)

Weights of 7 bits satisfy this always; most weights of 8 bits do too, and need no coarser grid. The
pairs, established by running ONNX Runtime's QLinearConv on weights made for it: neighbours 2i, 2i+1
in the order (kernel row, kernel column, input channel). With an even number of input channels these
are channels 2i and 2i+1 at one kernel position; with an odd number every neighbour is taken for a
pair. Depthwise convolutions run in a kernel of their own that does not saturate.
"""

import numpy as np
import numpy.typing as npt

from resdeploy.calibration.ranges.ranges import LARGEST_INT8
from resdeploy.deploy.arrays import Float32s

_LIMIT = 128

Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


def saturating_pairs(shape: tuple[int, ...], group: int) -> Pairs:
    """Columns of W.reshape(C_out, −1) that are added in pairs: (first, second), same length.

    `shape` is (C_out, C_in / group, kh, kw). Empty for a depthwise convolution.
    """
    channels_out, channels, height, width = shape
    if channels == 1 and 1 < group == channels_out:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    columns = np.arange(channels * height * width).reshape(channels, height * width)
    in_order = columns.T.ravel()
    step = 2 if channels % 2 == 0 else 1
    return in_order[:-1:step], in_order[1::step]


def exact_scale(weight: Float32s, group: int) -> Float32s:
    """Finest scale per output channel, (C_out,), on which every pair fits before rounding.

    s = max(max|w| / 127, max pair sum of positive parts / 128, of negative parts / 128); 1 for a
    channel of zeros. Rounding may still push a pair over by one: finish with `clip_pairs`.
    """
    rows = weight.reshape(len(weight), -1)
    first, second = saturating_pairs(weight.shape, group)
    scale = np.abs(rows).max(axis=1) / LARGEST_INT8
    for sign in (1, -1):
        sums = np.maximum(sign * rows[:, first], 0)
        sums += np.maximum(sign * rows[:, second], 0)
        scale = np.maximum(scale, sums.max(axis=1, initial=0) / _LIMIT)
    return np.where(scale > 0, scale, 1).astype(np.float32)


def clip_pairs(values: npt.NDArray[np.int8], group: int) -> npt.NDArray[np.int8]:
    """Bring the second weight of each saturating pair within what the first one leaves it."""
    rows = values.reshape(len(values), -1).astype(np.int16)
    # In order: with an odd number of channels the second of one pair is the first of the next.
    for first, second in zip(*saturating_pairs(values.shape, group), strict=True):
        low, high = pair_limits(rows[:, first])
        rows[:, second] = rows[:, second].clip(low, high)
    return rows.astype(np.int8).reshape(values.shape)


def pair_limits(
    other: npt.NDArray[np.integer],
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Smallest and largest integer that may stand beside `other` in a pair, elementwise."""
    low = np.maximum(-_LIMIT - np.minimum(other, 0), -LARGEST_INT8)
    high = np.minimum(_LIMIT - np.maximum(other, 0), LARGEST_INT8)
    return low, high


def saturates(values: npt.NDArray[np.int8], group: int) -> bool:
    """Whether some image could make the kernel saturate on these weights."""
    first, second = saturating_pairs(values.shape, group)
    rows = values.reshape(len(values), -1).astype(np.int16)
    low, high = pair_limits(rows[:, first])
    return bool(((rows[:, second] < low) | (rows[:, second] > high)).any())
