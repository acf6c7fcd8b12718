"""Turns an image into the network's input, with exactly the pixels torchvision's transforms give.

Defined once, and used by calibration, verification, prediction and the benchmark:

    image --open--> RGB --resize--> --centre crop--> x = (v / 255 - mean) / std, (3, H, W) float32

* open: `PIL.Image.open(...).convert("RGB")`, what torchvision's `ImageFolder` loads. EXIF rotation
  is not applied, because the training pipeline did not apply it either.
* resize: Pillow's antialiased filter; a whole number is the length of the shorter side, the longer
  one becomes floor(px * long / short) (torchvision `_compute_resized_output_size`); a pair (H, W)
  is exact and does not keep the aspect.
* centre crop: the corner is round((size - crop) / 2); smaller images are padded with black.
* v / 255, minus mean, over std are three float32 operations in that order. A byte has 256 values,
  so they are tabulated per channel: the same bits, a third of the time.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resdeploy.deploy.arrays import Bytes, Float32s
from resdeploy.deploy.defaults import LARGEST_INPUT_PX
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.geometry import FILTERS, fitted
from resdeploy.deploy.reading import read_json

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes an input tensor; see the module's docstring.

    Attributes:
        name: "imagenet", "half", "cifar" or the name a JSON file gave it.
        resize_px: shorter side (keeps the aspect), or (H, W), or None for no resize.
        crop_px: (H, W) of the centre crop, or None.
        mean, std: per channel in RGB order, for values in 0..1.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
    """

    name: str
    resize_px: int | tuple[int, int] | None
    crop_px: tuple[int, int] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"

    @property
    def input_size_px(self) -> tuple[int, int]:
        """Height and width of the tensor this makes."""
        if self.crop_px is not None:
            return self.crop_px
        if isinstance(self.resize_px, tuple):
            return self.resize_px
        raise InputError(
            f"preprocessing {self.name!r} does not fix the input size: "
            'give it "crop_px": [H, W] or "resize_px": [H, W]'
        )

    @cached_property
    def _table(self) -> Float32s:
        """(3, 256): the normalised value of every byte in every channel."""
        values = np.arange(256, dtype=np.float32) / np.float32(255)
        mean = np.array(self.mean, np.float32)[:, None]
        std = np.array(self.std, np.float32)[:, None]
        return ((values - mean) / std).astype(np.float32)

    def apply(self, image: Image.Image, out: Float32s | None = None) -> Float32s:
        """Turn an RGB image into a (3, H, W) float32 tensor, written into `out` when given.

        Raises:
            InputError: as `pixels`.
        """
        return self.normalized(self.pixels(image), out)

    def pixels(self, image: Image.Image) -> Bytes:
        """Resize and crop an RGB image: (H, W, 3), still bytes.

        Raises:
            InputError: the image is so long and narrow that the resized one would not fit
                Pillow's decompression-bomb limit, or its size is not the network's.
        """
        image = fitted(image, self.resize_px, self.crop_px, self.interpolation)
        height, width = self.input_size_px
        if image.size != (width, height):
            raise InputError(
                f"image is {image.size[0]}x{image.size[1]} after preprocessing {self.name!r}, "
                f"expected {width}x{height}"
            )
        return np.asarray(image)

    def normalized(self, pixels: Bytes, out: Float32s | None = None) -> Float32s:
        """Turn the bytes (H, W, 3) into (3, H, W) float32, written into `out` when given."""
        if out is None:
            out = np.empty((3, *pixels.shape[:2]), np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=out[channel], mode="clip")
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values, the form stored in the manifest, in the ONNX and in a JSON file."""
        values = asdict(self).items()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values}

    @classmethod
    def from_json(cls, fields: Any, *, source: str) -> "Preprocess":
        """Read what `to_json` writes; `source` names the file in error messages.

        Raises:
            InputError: a field is missing, unknown or not of its type.
        """
        try:
            preprocess = cls(
                name=str(fields.get("name", Path(source).stem)),
                resize_px=_size(fields.get("resize_px"), scalar=True),
                crop_px=_pair(_size(fields.get("crop_px"), scalar=False)),
                mean=_channels(fields["mean"]),
                std=_channels(fields["std"]),
                interpolation=str(fields.get("interpolation", "bilinear")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source}: not a preprocessing description ({error!r}); expected an object like "
                f"{json.dumps(named('imagenet').to_json())}"
            ) from error
        unknown = set(fields) - set(preprocess.to_json())
        if unknown:
            raise InputError(
                f"{source}: unknown preprocessing field {sorted(unknown)[0]!r}; "
                f"known are {', '.join(preprocess.to_json())}"
            )
        return preprocess.checked()

    def checked(self) -> "Preprocess":
        """Return self, or raise InputError for values that cannot work."""
        if self.interpolation not in FILTERS:
            raise InputError(
                f"preprocessing {self.name!r}: interpolation {self.interpolation!r} is not one of "
                f"{', '.join(FILTERS)}"
            )
        # judged as float32, in which the arithmetic is done
        with np.errstate(all="ignore"):
            finite = bool(np.isfinite(self._table).all())
        if not (finite and min(self.std) > 0):
            raise InputError(
                f"preprocessing {self.name!r}: mean {self.mean} and std {self.std} must be finite "
                "and std positive"
            )
        sizes = [*self.input_size_px]
        if self.resize_px is not None:
            sizes += [self.resize_px] if isinstance(self.resize_px, int) else [*self.resize_px]
        if min(sizes) < 1:
            raise InputError(f"preprocessing {self.name!r}: sizes must be at least 1 pixel")
        if max(self.input_size_px) > LARGEST_INPUT_PX or max(sizes) > 2 * LARGEST_INPUT_PX:
            raise InputError(
                f"preprocessing {self.name!r}: {max(sizes)} pixels, limit: {LARGEST_INPUT_PX} for "
                f"the input and {2 * LARGEST_INPUT_PX} for the resized image"
            )
        return self


def named(name: str, input_size_px: int = 224) -> Preprocess:
    """The preprocessing called `name`, scaled to a square input of `input_size_px`.

    imagenet: shorter side to 256/224 of the input, centre crop, ImageNet mean and std.
    half: resize to the input without keeping the aspect, mean = std = 0.5.
    cifar: resize to the input without keeping the aspect (nothing to do for images of that
        size), ImageNet mean and std.

    Raises:
        InputError: no such name.
    """
    size = (input_size_px, input_size_px)
    if name == "imagenet":
        resize_px = round(input_size_px * 256 / 224)
        preprocess = Preprocess(name, resize_px, size, IMAGENET_MEAN, IMAGENET_STD)
    elif name == "half":
        preprocess = Preprocess(name, size, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    elif name == "cifar":
        preprocess = Preprocess(name, size, None, IMAGENET_MEAN, IMAGENET_STD)
    else:
        raise InputError(
            f"preprocessing {name!r} is neither a known name (imagenet, half, cifar) "
            "nor an existing JSON file"
        )
    return preprocess.checked()


def names_file(name_or_file: str) -> bool:
    """Whether this is meant as a JSON file, and not as a name."""
    path = Path(name_or_file)
    return path.suffix.lower() == ".json" or path.is_file()


def read_preprocess(path: Path, input_size_px: int | None = None) -> Preprocess:
    """The preprocessing that a JSON file describes.

    Raises:
        InputError: it cannot be read, or its input size is not `input_size_px`.
    """
    try:
        fields = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    preprocess = Preprocess.from_json(fields, source=str(path))
    if input_size_px is not None and preprocess.input_size_px != (input_size_px, input_size_px):
        height, width = preprocess.input_size_px
        raise InputError(
            f"{path}: makes inputs of {width}x{height} pixels, but --input-size asks for "
            f"{input_size_px}: leave one of them out"
        )
    return preprocess


def override(
    preprocess: Preprocess,
    *,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    resize_px: int | None = None,
) -> Preprocess:
    """The same preprocessing with some values replaced; its name says that it was changed."""
    if mean is None and std is None and resize_px is None:
        return preprocess
    return replace(
        preprocess,
        name=f"{preprocess.name} (changed)",
        mean=mean or preprocess.mean,
        std=std or preprocess.std,
        resize_px=preprocess.resize_px if resize_px is None else resize_px,
        crop_px=preprocess.input_size_px if resize_px is not None else preprocess.crop_px,
    ).checked()


def _size(value: Any, *, scalar: bool) -> int | tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, bool):
        raise TypeError("a size cannot be true or false")
    if isinstance(value, int):
        return value if scalar else (value, value)
    height, width = value
    if type(height) is not int or type(width) is not int:
        raise TypeError(f"a size must be whole pixels, got {value!r}")
    return height, width


def _pair(value: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (value, value) if isinstance(value, int) else value


def _channels(values: Any) -> tuple[float, float, float]:
    if isinstance(values, str):
        raise TypeError(f"three numbers expected, got {values!r}")
    red, green, blue = (float(value) for value in values)
    return red, green, blue
