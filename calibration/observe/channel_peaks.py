"""The largest magnitude of every channel of a tensor."""

from typing import Literal

import numpy as np

from resdeploy.deploy.arrays import Float32s


class ChannelPeaks:
    """An accumulator (see `collect`) of max|x_c| per channel, (C,), and of an image's size."""

    needs: Literal["whole"] = "whole"

    def __init__(self) -> None:
        self.peaks: Float32s = np.zeros(1, np.float32)
        self.size = 0

    def update(self, values: Float32s) -> None:
        """Take in a batch (N, C, …)."""
        self.size = values[0].size
        rows = values.reshape(*values.shape[:2], -1)
        highs, lows = rows.max(axis=(0, 2)), rows.min(axis=(0, 2))
        self.peaks = np.maximum(self.peaks, np.maximum(highs, -lows))

    def add(self, peaks: Float32s, size: int) -> None:
        """Take in what another saw of other images."""
        self.size = size
        self.peaks = np.maximum(self.peaks, peaks)
