"""What is remembered of one activation tensor while pictures stream by: extremes and a histogram.

Both are merged exactly: whatever the shards, their order and the batch size, the state (and so
every range made from it) is the same bit for bit as after one run, because it is made of minima,
maxima and whole numbers only. Its size does not depend on the number of pictures.

The histogram counts values by their bfloat16 truncation: 65536 fixed bins, 128 in every octave of
either sign. A fixed grid needs no range known beforehand and no rescaling when a larger value
comes, and counting is one `bincount` over the upper halves of the float32 words.
It looks at a fixed sample of each picture, every k-th row and column of every channel; the
extremes look at every value. `needs` tells `collect` that a part of the tensor is enough, which the
graph itself then extracts: carrying whole tensors out of it costs more than all the counting.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

# Values of one picture that enter the histogram, at most: 128 pictures give a million.
_SAMPLE = 1 << 13
# Sampled values that wait to be counted: clearing and adding 65536 bins costs as much as some
# 50000 values, so small batches are counted together.
_WAITING = 1 << 18
_BINS = 1 << 16
_SIGN = 1 << 15
# float32 is a whole multiple of 2^-149, so sums of pictures' extremes are exact as integers.
_UNIT = 2.0**149


class Extremes:
    """Smallest and largest value over all pictures, and the means of every picture's own."""

    needs: Literal["ends"] = "ends"

    def __init__(self) -> None:
        self.low = np.inf
        self.high = -np.inf
        self.pictures = 0
        self._low_sum = 0
        self._high_sum = 0

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Take in a batch (N, …) of N pictures.

        Raises:
            FloatingPointError: a value is NaN or infinite.
        """
        lows = values.reshape(len(values), -1).min(axis=1).tolist()
        highs = values.reshape(len(values), -1).max(axis=1).tolist()
        if not math.isfinite(sum(lows) + sum(highs)):  # NaN passes through min and max
            raise FloatingPointError("NaN or infinite values")
        self.low = min(self.low, *lows)
        self.high = max(self.high, *highs)
        self.pictures += len(values)
        self._low_sum += sum(int(low * _UNIT) for low in lows)
        self._high_sum += sum(int(high * _UNIT) for high in highs)

    def merge(self, other: "Extremes") -> None:
        """Add what another shard saw."""
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.pictures += other.pictures
        self._low_sum += other._low_sum
        self._high_sum += other._high_sum

    @property
    def mean_low(self) -> float:
        """Mean over the pictures of each one's smallest value."""
        return self._low_sum / (self.pictures * int(_UNIT))

    @property
    def mean_high(self) -> float:
        """Mean over the pictures of each one's largest value."""
        return self._high_sum / (self.pictures * int(_UNIT))


class Histogram:
    """The bfloat16 histogram of a fixed sample of each picture, and the extremes of what it saw.

    `collect` shows it the sample alone unless something else on the tensor needs all of it; for the
    extremes of all values, collect `Extremes` beside it.
    """

    needs: Literal["sample"] = "sample"

    def __init__(self) -> None:
        self.extremes = Extremes()
        self._counts = np.zeros(_BINS, np.int64)
        self._waiting: list[npt.NDArray[np.uint16]] = []

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many values fell into each of the 65536 bins, numbered by their upper 16 bits."""
        if self._waiting:
            self._counts += np.bincount(np.concatenate(self._waiting), minlength=_BINS)
            self._waiting.clear()
        return self._counts

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Take in a batch (N, …) of N pictures; raises FloatingPointError like `Extremes`."""
        self.extremes.update(values)
        step = sampling_step(values.shape)
        words = np.ascontiguousarray(values[:, :, ::step, ::step] if step > 1 else values)
        self._waiting.append((words.view(np.uint32) >> 16).astype(np.uint16).reshape(-1))
        if sum(map(len, self._waiting)) >= _WAITING:
            _ = self.counts

    def merge(self, other: "Histogram") -> None:
        """Add what another shard saw."""
        self.extremes.merge(other.extremes)
        self._counts = self.counts + other.counts

    def bins(
        self,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Left edges, right edges and counts of the bins that hold something, ascending.

        Edges are drawn in to the extremes, so that a value many pictures share at the very end,
        such as the 6 of ReLU6, is a point and not smeared over a bin.
        """
        index = np.flatnonzero(self.counts != 0)
        negative, magnitude = index >= _SIGN, (index % _SIGN).astype(np.uint32)
        near = (magnitude << 16).view(np.float32).astype(np.float64)
        far = ((magnitude + 1) << 16).view(np.float32).astype(np.float64)
        far = np.where(magnitude == 0, 0.0, far)  # zero and what no grid tells from zero
        left = np.where(negative, -far, near).clip(self.extremes.low, self.extremes.high)
        right = np.where(negative, -near, far).clip(self.extremes.low, self.extremes.high)
        order = np.argsort(left, kind="stable")
        return left[order], right[order], self.counts[index][order]


def sampling_step(shape: tuple[int, ...]) -> int:
    """k of the sample x[:, :, ::k, ::k] of a tensor (N, C, H, W); other tensors enter whole."""
    step = 1
    if len(shape) == 4:
        _, channels, height, width = shape
        while step < max(height, width) and channels * -(-height // step) * -(-width // step) > (
            _SAMPLE
        ):
            step += 1
    return step
