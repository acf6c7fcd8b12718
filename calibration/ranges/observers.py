"""What is remembered of one activation tensor while images stream by: extremes and a histogram.

The state, and so every range made from it, is the same bit for bit whatever the order of the images
and the batch size, because it is made of minima, maxima and whole numbers only. Its size does not
depend on the number of images.

The extremes are those of every value. The histogram counts values by their bfloat16 truncation:
65536 fixed bins, 128 in every octave of either sign. A fixed grid needs no range known beforehand
and no rescaling when a larger value comes, and counting is one `bincount` over the upper halves of
the float32 words. It looks at a fixed sample of each image, every k-th row and column of every
channel. `needs` tells `collect` which part of the tensor is enough, which the graph itself then
extracts: carrying whole tensors out of it costs more than all the counting.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from resdeploy.deploy.arrays import Float32s, Float64s, Indices

# Values of one image that enter the histogram, at most: 128 images give a million.
_SAMPLE = 1 << 13
# Sampled values that wait to be counted: clearing and adding 65536 bins costs as much as some
# 50000 values, so small batches are counted together.
_WAITING = 1 << 18
_BINS = 1 << 16
_SIGN = 1 << 15
# float32 is a whole multiple of 2^-149, so sums of images' extremes are exact as integers.
_UNIT = 2.0**149


class Extremes:
    """Smallest and largest value over all images, and the means of every image's own."""

    needs: Literal["extremes"] = "extremes"

    def __init__(self) -> None:
        self.low = np.inf
        self.high = -np.inf
        self.images = 0
        self._low_sum = 0
        self._high_sum = 0

    def update(self, values: Float32s) -> None:
        """Take in a batch (N, …) of N images.

        Raises:
            FloatingPointError: a value is NaN or infinite.
        """
        lows = values.reshape(len(values), -1).min(axis=1).tolist()
        highs = values.reshape(len(values), -1).max(axis=1).tolist()
        if not math.isfinite(sum(lows) + sum(highs)):  # NaN passes through min and max
            raise FloatingPointError("NaN or infinite values")
        self.low = min(self.low, *lows)
        self.high = max(self.high, *highs)
        self.images += len(values)
        self._low_sum += sum(int(low * _UNIT) for low in lows)
        self._high_sum += sum(int(high * _UNIT) for high in highs)

    def state(self) -> tuple[float, float, int, int, int]:
        """Lowest, highest, images, and the exact sums of both over the images."""
        return self.low, self.high, self.images, self._low_sum, self._high_sum

    def add(self, low: float, high: float, images: int, low_sum: int, high_sum: int) -> None:
        """Take in the state of another that saw other images."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.images += images
        self._low_sum += low_sum
        self._high_sum += high_sum

    @property
    def mean_low(self) -> float:
        """Mean over the images of each one's smallest value."""
        return self._low_sum / (self.images * int(_UNIT))

    @property
    def mean_high(self) -> float:
        """Mean over the images of each one's largest value."""
        return self._high_sum / (self.images * int(_UNIT))


class SampleCounts:
    """The bfloat16 histogram of a fixed sample of each image."""

    needs: Literal["sample"] = "sample"

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._counts = np.zeros(_BINS, np.int64)
        self._waiting: list[npt.NDArray[np.uint16]] = []

    @property
    def counts(self) -> Indices:
        """How many values fell into each of the 65536 bins, numbered by their upper 16 bits."""
        if self._waiting:
            self._counts += np.bincount(np.concatenate(self._waiting), minlength=_BINS)
            self._waiting.clear()
        return self._counts

    def update(self, values: Float32s) -> None:
        """Take in a batch (N, …) of N images, whole or sampled already."""
        step = sampling_step(values.shape)
        words = np.ascontiguousarray(values[:, :, ::step, ::step] if step > 1 else values)
        self._waiting.append((words.view(np.uint32) >> 16).astype(np.uint16).reshape(-1))
        if sum(map(len, self._waiting)) >= _WAITING:
            _ = self.counts


@dataclass(frozen=True)
class Seen:
    """What a histogram saw of some images, to be added to another's: small, however many they were.

    bins, counts: of the bins that hold something. low_sum, high_sum: exact, in units of 2^-149.
    """

    low: float
    high: float
    images: int
    low_sum: int
    high_sum: int
    bins: Indices
    counts: Indices


class Histogram:
    """The extremes of every value of a tensor, and a histogram of a sample of them.

    `collect` is given its two `parts`, which need different parts of the tensor.
    """

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self.extremes = Extremes()
        self._sample = SampleCounts()

    @property
    def parts(self) -> tuple[Extremes, SampleCounts]:
        """What learns from the tensor."""
        return self.extremes, self._sample

    @property
    def counts(self) -> Indices:
        """See `SampleCounts`."""
        return self._sample.counts

    def update(self, values: Float32s) -> None:
        """Take in a whole batch (N, …) of N images; raises FloatingPointError like `Extremes`."""
        for part in self.parts:
            part.update(values)

    def seen(self) -> Seen:
        """All that it remembers."""
        bins = np.flatnonzero(self.counts)
        return Seen(*self.extremes.state(), bins, self.counts[bins])

    def add(self, seen: Seen) -> None:
        """Remember what another saw of other images, as if it had been shown those itself."""
        self.extremes.add(seen.low, seen.high, seen.images, seen.low_sum, seen.high_sum)
        self.counts[seen.bins] += seen.counts

    def bins(self) -> tuple[Float64s, Float64s, Indices]:
        """Left edges, right edges and counts of the bins that hold something, ascending.

        Edges are drawn in to the extremes, so that a value many images share at the very end,
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
    """The k of the sample x[:, :, ::k, ::k] of a tensor (N, C, H, W), 1 for other tensors."""
    step = 1
    if len(shape) == 4:
        _, channels, height, width = shape
        while step < max(height, width) and channels * -(-height // step) * -(-width // step) > (
            _SAMPLE
        ):
            step += 1
    return step
