"""The images an export is verified on: the user's own with `--data`, else four built-in ones."""

import numpy as np
from PIL import Image

from resdeploy.deploy.arrays import Float32s, Float64s
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import Preprocess

_SIDE_PX = 256
_TEXTURES = 2


def sample_inputs(images: Images | None, preprocess: Preprocess, count: int) -> Float32s:
    """(n, 3, H, W) float32: at most `count` of the images, evenly spaced, or the built-in ones.

    Raises:
        InputError: one of them cannot be read.
    """
    if images is None:
        return builtin_inputs(preprocess)[:count]
    return np.stack([read_input(path, preprocess) for path in images.spread(count).paths])


def builtin_inputs(preprocess: Preprocess) -> Float32s:
    """(4, 3, H, W) float32: the built-in images through the network's own preprocessing."""
    return np.stack([preprocess.apply(image) for image in builtin_images()])


def builtin_images() -> list[Image.Image]:
    """Four fixed RGB images of 256x256 pixels."""
    y, x = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX] / _SIDE_PX
    radius = np.hypot(x - 0.5, y - 0.5)
    structured = [
        np.stack([(np.floor(x * n) + np.floor(y * n)) % 2 for n in (8, 16, 32)], axis=-1),
        np.stack([0.5 + 0.5 * np.sin(60 * radius + phase) for phase in (0, 2, 4)], axis=-1),
    ]
    random = np.random.default_rng(0)
    textures = [_natural_texture(random) for _ in range(_TEXTURES)]
    return [
        Image.fromarray(np.round(255 * image).astype(np.uint8))
        for image in (*structured, *textures)
    ]


def _natural_texture(random: np.random.Generator) -> Float64s:
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
