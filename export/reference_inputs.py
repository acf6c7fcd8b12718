"""The pictures PyTorch's answers are recorded for: the user's own, or a few built-in ones.

The built-in ones are structured (edges, textures, smooth shading, natural-image spectrum), because
white noise drives a trained network into a corner no photograph reaches. They prove arithmetic,
not accuracy.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resdeploy.deploy.preprocess import Preprocess

_SIDE_PX = 256
_TEXTURES = 2


def builtin_pictures() -> list[Image.Image]:
    """Four fixed RGB pictures of 256x256 pixels."""
    y, x = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX] / _SIDE_PX
    radius = np.hypot(x - 0.5, y - 0.5)
    structured = [
        np.stack([(np.floor(x * n) + np.floor(y * n)) % 2 for n in (8, 16, 32)], axis=-1),
        np.stack([0.5 + 0.5 * np.sin(60 * radius + phase) for phase in (0, 2, 4)], axis=-1),
    ]
    random = np.random.default_rng(0)
    textures = [_natural_texture(random) for _ in range(_TEXTURES)]
    return [
        Image.fromarray(np.round(255 * picture).astype(np.uint8))
        for picture in (*structured, *textures)
    ]


def builtin_inputs(preprocess: Preprocess) -> NDArray[np.float32]:
    """(4, 3, H, W) float32: the built-in pictures through the network's own preprocessing."""
    return np.stack([preprocess.apply(picture) for picture in builtin_pictures()])


def _natural_texture(random: np.random.Generator) -> NDArray[np.float64]:
    """Noise whose amplitude falls as 1/f, as in photographs (Field 1987), scaled to 0..1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_SIDE_PX), np.fft.fftfreq(_SIDE_PX)))
    frequency[0, 0] = 1
    channels = []
    shared = random.standard_normal((_SIDE_PX, _SIDE_PX))
    for _ in range(3):
        noise = shared + 0.5 * random.standard_normal((_SIDE_PX, _SIDE_PX))
        texture = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
        channels.append((texture - texture.min()) / np.ptp(texture))
    return np.stack(channels, axis=-1)
