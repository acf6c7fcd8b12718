"""Decodes images once for several preprocessings, and turns the pixels into network inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import check_readable
from resdeploy.deploy.images.files import open_image
from resdeploy.deploy.images.prefetch import in_order
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.machine import cores

Pixels = NDArray[np.uint8]

_BATCH = 4  # larger ones leave the processor's cache, and are slower


def geometry(preprocess: Preprocess) -> Preprocess:
    """The part of `preprocess` that happens to pixels: the same for any mean and std."""
    return replace(preprocess, name="pixels", mean=(0.0,) * 3, std=(1.0,) * 3)


def decode(paths: Sequence[Path], geometries: Sequence[Preprocess]) -> Mapping[Preprocess, Pixels]:
    """(n, 3, H, W) uint8 for each geometry; an image that cannot be read is left out of all.

    Raises:
        InputError: too many images cannot be read.
    """

    def read(path: Path) -> list[Pixels] | InputError:
        try:
            image = open_image(path)
            return [np.rint(255 * way.apply(image)).astype(np.uint8) for way in geometries]
        except InputError as error:
            return error

    kept: list[list[Pixels]] = []
    unreadable: list[tuple[Path, str]] = []
    for path, found in zip(paths, in_order(read, paths, threads=cores()), strict=True):
        if isinstance(found, InputError):
            unreadable.append((path, str(found)))
            check_readable(unreadable, len(paths))
        else:
            kept.append(found)
    return {way: np.stack([image[at] for image in kept]) for at, way in enumerate(geometries)}


def inputs(pixels: Pixels, preprocess: Preprocess) -> Iterator[torch.Tensor]:
    """Batches of (n, 3, H, W) float32, the values that `preprocess` gives for these pixels."""
    mean = torch.tensor(preprocess.mean, dtype=torch.float32)[:, None, None]
    std = torch.tensor(preprocess.std, dtype=torch.float32)[:, None, None]
    for start in range(0, len(pixels), _BATCH):
        yield (
            torch.from_numpy(pixels[start : start + _BATCH]).float().div_(255).sub_(mean).div_(std)
        )
