"""Peaks are the largest magnitudes per channel over all batches."""

import numpy as np

from resdeploy.calibration.observe.channel_peaks import ChannelPeaks


def test_peaks_of_both_signs_over_all_batches() -> None:
    first = np.zeros((2, 3, 2, 2), np.float32)
    second = np.zeros((1, 3, 2, 2), np.float32)
    first[0, 0, 1, 1], first[1, 1, 0, 0], second[0, 1, 1, 0] = 2, -3, 2.5
    peaks = ChannelPeaks()
    peaks.update(first)
    peaks.update(second)
    assert peaks.peaks.tolist() == [2, 3, 0]
    assert peaks.size == 12


def test_a_tensor_without_positions() -> None:
    peaks = ChannelPeaks()
    peaks.update(np.array([[1, -4], [-2, 3]], np.float32))
    assert peaks.peaks.tolist() == [2, 4]
