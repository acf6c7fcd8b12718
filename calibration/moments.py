"""What a layer sees: first and second moments of its unfolded input patches.

    μ = E[u]     C = E[(u − μ)(u − μ)ᵀ]      u: one patch of one group, K = C_in/group · kh · kw

over a seeded sample of positions of every picture. μ serves bias correction, C the rounding of
weights. Of a picture at most `POSITIONS` positions enter, drawn anew for every batch: neighbouring
patches share most pixels, so more positions add cost and little knowledge.

Memory is 4·group·K² bytes a layer, whatever the number of pictures. A 3×3 convolution over 512
channels has 85 MB; `in_passes` keeps what is collected at the same time under a bound.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from resdeploy.calibration.layers import Layer

POSITIONS = 64
# Moments that may lie in memory at once.
PASS_BYTES = 1 << 29

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Moments:
    """An accumulator (see `collect`) of one layer's moments over the first `pictures` pictures."""

    def __init__(self, layer: Layer, *, seed: int = 0, pictures: int = 1 << 30) -> None:
        self.layer = layer
        self.count = 0
        self._left = pictures
        self._random = np.random.default_rng(seed)
        # Moments are taken around the first batch's mean: a variance that is small beside the
        # mean's square would drown in float32 otherwise.
        self._shift: Floats | None = None
        self._sum = np.zeros((layer.group, layer.columns))
        self._second = np.zeros((layer.group, layer.columns, layer.columns), np.float32)

    def update(self, values: Floats) -> None:
        """Take in the layer's input (N, C_in, H, W), or (N, C_in) for a Gemm."""
        values = values[: self._left]
        if not len(values):
            return
        self._left -= len(values)
        patches = sample_patches(self.layer, values, self._random)
        if self._shift is None:
            self._shift = patches.mean(axis=2, keepdims=True)
        patches -= self._shift
        self.count += patches.shape[2]
        self._sum += patches.sum(axis=2, dtype=np.float64)
        self._second += patches @ patches.transpose(0, 2, 1)

    @property
    def mean(self) -> Doubles:
        """μ, (group, K)."""
        shift = 0.0 if self._shift is None else self._shift[:, :, 0].astype(np.float64)
        mean: Doubles = self._sum / self.count + shift
        return mean

    @property
    def covariance(self) -> Doubles:
        """C, (group, K, K)."""
        rest = self._sum / self.count
        return self._second / np.float64(self.count) - rest[:, :, None] * rest[:, None, :]


def moment_bytes(layer: Layer) -> int:
    """Size of the second moments of one layer."""
    return 4 * layer.group * layer.columns**2


def in_passes(layers: Sequence[Layer], limit_bytes: int = PASS_BYTES) -> list[list[Layer]]:
    """Split layers, in order, so that each part's moments fit the bound (or is a single layer)."""
    parts: list[list[Layer]] = []
    room = 0
    for layer in layers:
        size = moment_bytes(layer)
        if not parts or size > room:
            parts.append([])
            room = limit_bytes
        parts[-1].append(layer)
        room -= size
    return parts


def sample_patches(layer: Layer, values: Floats, random: np.random.Generator) -> Floats:
    """Unfolded patches (group, K, samples) at the same random positions of every picture.

    `values` is (N, C_in, H, W) or (N, C_in). Padding is read as zero, as the layer reads it.
    """
    values = values.reshape(*values.shape[:2], *(values.shape[2:] or (1, 1)))
    pictures, channels, height, width = values.shape
    ys, xs = _positions(layer, height, width, random)
    taps = np.empty((channels, layer.shape[2] * layer.shape[3], pictures, len(ys)), np.float32)
    flats = values.reshape(pictures, channels, -1)
    for row in range(layer.shape[2]):
        for column in range(layer.shape[3]):
            y = ys * layer.strides[0] - layer.pads[0] + row * layer.dilations[0]
            x = xs * layer.strides[1] - layer.pads[1] + column * layer.dilations[1]
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            flat = np.where(inside, y * width + x, 0)
            tap = taps[:, row * layer.shape[3] + column]
            tap[:] = flats[:, :, flat].transpose(1, 0, 2)
            tap[:, :, ~inside] = 0
    # (C, taps, N, P) -> (group, C/group · taps, N·P)
    return taps.reshape(layer.group, layer.columns, -1)


def _positions(
    layer: Layer, height: int, width: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of at most `POSITIONS` outputs of the layer, all of them when fewer."""
    reach_y = layer.dilations[0] * (layer.shape[2] - 1)
    reach_x = layer.dilations[1] * (layer.shape[3] - 1)
    rows = (height + layer.pads[0] + layer.pads[2] - reach_y - 1) // layer.strides[0] + 1
    columns = (width + layer.pads[1] + layer.pads[3] - reach_x - 1) // layer.strides[1] + 1
    total = rows * columns
    chosen = np.arange(total)
    if total > POSITIONS:
        chosen = np.sort(random.choice(total, POSITIONS, replace=False))
    return chosen // columns, chosen % columns
