"""The bytes of one JPEG, PNG or WebP image to the network's input, within limits."""

import time
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.serving.refusal import Refusal

# few decoders, all well tried: a server opens what strangers send
_FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class Decoded:
    """The input (3, H, W) float32 of one image, and what it took."""

    pixels: Float32s
    decode_s: float
    preprocess_s: float


def open_rgb(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode an image to RGB; its size is checked before anything is decompressed.

    Raises:
        Refusal: not an image of these formats, damaged, or of more than `max_pixels`.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Refusal(
                    "too_large",
                    f"image of {width}x{height} pixels, limit: {max_pixels}: send a smaller one",
                )
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except Refusal:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own limit, which comes first
        raise Refusal(
            "too_large",
            f"image of over {Image.MAX_IMAGE_PIXELS} pixels, limit: {max_pixels}: "
            "send a smaller one",
        ) from error
    except UnidentifiedImageError as error:
        raise Refusal(
            "not_an_image", f"{len(data)} bytes that are no JPEG, PNG or WebP image"
        ) from error
    except Exception as error:
        # damaged files make Pillow's decoders raise OSError, ValueError, SyntaxError and others
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Refusal("not_an_image", f"the image cannot be decoded: {reason}") from error


def decode(data: bytes, preprocess: Preprocess, *, max_pixels: int) -> Decoded:
    """What `Classifier.predict` makes of a file with these bytes, bit for bit.

    Raises:
        Refusal: as `open_rgb`, or so long and narrow that it cannot be resized.
    """
    begun = time.perf_counter()
    image = open_rgb(data, max_pixels=max_pixels)
    opened = time.perf_counter()
    try:
        pixels = preprocess.apply(image)
    except InputError as error:
        raise Refusal("too_large", str(error)) from error
    return Decoded(pixels, opened - begun, time.perf_counter() - opened)
