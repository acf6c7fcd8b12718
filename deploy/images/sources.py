"""What a program may hand over as one image: a path, a file's bytes, an array, a PIL image."""

import os
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.files import decoded, open_image
from resdeploy.deploy.reading import StrPath

Channels = Literal["RGB", "BGR"]
ImageSource = StrPath | bytes | bytearray | memoryview | npt.NDArray[np.uint8] | Image.Image

_EXPECTED = "a path, the bytes of an image file, a uint8 array (H, W, 3) or a PIL image"


def as_rgb(image: ImageSource, *, channels: Channels = "RGB") -> Image.Image:
    """The image in RGB.

    Args:
        image: a path; the bytes of an image file; an array (H, W, 3) uint8; or a PIL image.
        channels: the order of an array's channels: OpenCV gives "BGR".

    Raises:
        InputError: none of these, or it cannot be decoded.
    """
    if channels not in ("RGB", "BGR"):
        raise InputError(f"channels {channels!r} is not RGB or BGR")
    if isinstance(image, np.ndarray):
        return _of_array(image, channels)
    if channels == "BGR":
        raise InputError(f"channels BGR is for arrays, not for {_kind(image)}")
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, bytes | bytearray | memoryview):
        return decoded(BytesIO(image), f"image of {len(image)} bytes")
    if isinstance(image, str | os.PathLike):
        return open_image(os.fspath(image))
    raise InputError(f"image is {_kind(image)}, expected {_EXPECTED}")


def _of_array(array: npt.NDArray[Any], channels: Channels) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        shape = " x ".join(map(str, array.shape))
        raise InputError(
            f"image is an array of {array.dtype}, {shape}, expected uint8, height x width x 3"
        )
    pixels = array[:, :, ::-1] if channels == "BGR" else array
    return Image.fromarray(np.ascontiguousarray(pixels))


def _kind(value: object) -> str:
    """The type alone: the value may be megabytes of pixels."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
