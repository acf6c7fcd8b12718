"""What a layer sees: first and second moments of its unfolded input patches.

    μ = E[u]     C = E[(u − μ)(u − μ)ᵀ]      u: one patch of one group, K = C_in/group · kh · kw

over a seeded sample of positions of every image. μ serves bias correction, C the rounding of
weights. Of an image at most `POSITIONS` positions enter, drawn anew for every batch: neighbouring
patches share most pixels, so more positions add cost and little knowledge. Layers of few columns,
such as depthwise ones with 9, have little to learn and get 2·K, at least 16.

Memory is 4·group·K² bytes a layer, whatever the number of images. A 3×3 convolution over 512
channels has 85 MB; `in_passes` keeps what is collected at the same time under a bound. Wider
layers, the first Gemms of AlexNet and VGG, would have up to 2.5 GB: of them only μ is taken.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from resdeploy.calibration.graph.layers import Layer
from resdeploy.deploy.arrays import Float32s, Float64s, Floats, Indices

POSITIONS = 64
_FEWEST = 16
# K of the widest layer whose C is taken, and K beyond which C is float32: damped, no eigenvalue is
# below 1 % of the mean of K.
WIDEST, WIDE = 4608, 1024
_ROWS = 256
# Moments that may lie in memory at once.
PASS_BYTES = 1 << 29


class Moments:
    """An accumulator (see `collect`) of one layer's moments over the first `images` images."""

    needs: Literal["whole"] = "whole"

    def __init__(self, layer: Layer, *, seed: int = 0, images: int = 1 << 30) -> None:
        self.layer = layer
        self.count = 0
        self._left = images
        self._random = np.random.default_rng(seed)
        # Moments are taken around the first batch's mean: a variance that is small beside the
        # mean's square would drown in float32 otherwise.
        self._shift: Float32s | None = None
        self._sum = np.zeros((layer.group, layer.columns))
        self._second = (
            np.zeros((layer.group, layer.columns, layer.columns), np.float32)
            if layer.columns <= WIDEST
            else None
        )

    def update(self, values: Float32s) -> None:
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
        if self._second is not None:
            self._second += gram(patches)

    @property
    def mean(self) -> Float64s:
        """μ, (group, K)."""
        shift = 0.0 if self._shift is None else self._shift[:, :, 0].astype(np.float64)
        mean: Float64s = self._sum / self.count + shift
        return mean

    @property
    def covariance(self) -> Floats | None:
        """C, (group, K, K), float64; float32 of layers wider than `WIDE`, None beyond `WIDEST`."""
        if self._second is None:
            return None
        rest, count = self._sum / self.count, np.float64(self.count)
        dtype = np.float32 if self.layer.columns > WIDE else np.float64
        covariance = np.empty(self._second.shape, dtype)
        for start in range(0, self.layer.columns, _ROWS):  # float64 of a few rows at a time
            rows = slice(start, start + _ROWS)
            seen = self._second[:, rows] / count
            covariance[:, rows] = seen - rest[:, rows, None] * rest[:, None, :]
        return covariance

    def of_outputs(self, weight: Floats) -> tuple[Float64s, Floats | None]:
        """Mean and variance (C_out,) of W·u for W (group, rows, K); None where C is not kept."""
        mean = np.einsum("gok,gk->go", weight, self.mean).ravel()
        covariance = self.covariance
        if covariance is None:
            return mean, None
        spread = weight.astype(covariance.dtype, copy=False) @ covariance
        return mean, (spread * weight).sum(axis=2).ravel()


def gram(patches: Float32s) -> Float32s:
    """U·Uᵀ of every group, (group, K, K), for U (group, K, samples)."""
    if len(patches) > 1:
        return patches @ patches.transpose(0, 2, 1)
    # Of a matrix by its own transpose numpy has BLAS compute one half.
    return np.asarray((patches[0] @ patches[0].T)[None], np.float32)


def moment_bytes(layer: Layer) -> int:
    """Size of the second moments of one layer."""
    return 4 * layer.group * layer.columns**2 if layer.columns <= WIDEST else 0


def in_passes(
    layers: Sequence[Layer],
    limit_bytes: int = PASS_BYTES,
    *,
    size: Callable[[Layer], int] = moment_bytes,
) -> list[list[Layer]]:
    """Split layers, in order, so that each part fits the bound by `size`, or is a single layer."""
    parts: list[list[Layer]] = []
    room = 0
    for layer in layers:
        needed = size(layer)
        if not parts or needed > room:
            parts.append([])
            room = limit_bytes
        parts[-1].append(layer)
        room -= needed
    return parts


def sample_patches(
    layer: Layer, values: npt.NDArray[Any], random: np.random.Generator, *, padding: int = 0
) -> Float32s:
    """Unfolded patches (group, K, samples) at the same random positions of every image.

    `values` is (N, C_in, H, W) or (N, C_in), of any type. What lies outside is read as `padding`,
    which is the zero that the layer reads, or the integer that stands for it.
    """
    values = values.reshape(*values.shape[:2], *(values.shape[2:] or (1, 1)))
    images, channels, height, width = values.shape
    y, x = _read_at(layer, *_positions(layer, height, width, random))
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # All taps at once: their values lie side by side, and a plane is in the cache only once.
    flat = np.where(inside, y * width + x, 0)
    seen = values.reshape(images, channels, -1).take(flat, axis=2)
    if not inside.all():
        seen[:, :, ~inside] = padding
    # (N, C, taps, P) -> (C, taps, N, P) -> (group, C/group · taps, N·P)
    patches = np.empty((channels, len(flat), images, flat.shape[1]), np.float32)
    patches[:] = seen.transpose(1, 2, 0, 3)
    return patches.reshape(layer.group, layer.columns, -1)


def _read_at(layer: Layer, ys: Indices, xs: Indices) -> tuple[Indices, Indices]:
    """Rows and columns of the input, each (taps, P), that the outputs at `ys` and `xs` read."""
    row, column = np.divmod(np.arange(layer.shape[2] * layer.shape[3]), layer.shape[3])
    y = ys * layer.strides[0] - layer.pads[0] + row[:, None] * layer.dilations[0]
    x = xs * layer.strides[1] - layer.pads[1] + column[:, None] * layer.dilations[1]
    return y, x


def _positions(
    layer: Layer, height: int, width: int, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Rows and columns of as many outputs of the layer as `POSITIONS` says, or all of them."""
    reach_y = layer.dilations[0] * (layer.shape[2] - 1)
    reach_x = layer.dilations[1] * (layer.shape[3] - 1)
    rows = (height + layer.pads[0] + layer.pads[2] - reach_y - 1) // layer.strides[0] + 1
    columns = (width + layer.pads[1] + layer.pads[3] - reach_x - 1) // layer.strides[1] + 1
    total = rows * columns
    most = min(POSITIONS, max(_FEWEST, 2 * layer.columns))
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(random.choice(total, most, replace=False))
    return chosen // columns, chosen % columns
