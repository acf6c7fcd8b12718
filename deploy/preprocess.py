"""Turns a picture into the network's input, with exactly the pixels torchvision's transforms give.

The contract, defined once and used by calibration, verification, prediction and the benchmark:

    picture --open--> RGB --resize--> --centre crop--> x = (v / 255 - mean) / std, (3, H, W) float32

* open: `PIL.Image.open(...).convert("RGB")`, what torchvision's `ImageFolder` loads. EXIF rotation
  is not applied, because the training pipeline did not apply it either.
* resize: Pillow's antialiased filter; a whole number is the length of the shorter side, the longer
  one becomes floor(px * long / short) (torchvision `_compute_resized_output_size`); a pair (H, W)
  is exact and does not keep the aspect.
* centre crop: the corner is round((size - crop) / 2); smaller pictures are padded with black.
* v / 255, minus mean, over std are three float32 operations in that order. A byte has 256 values,
  so they are tabulated per channel: the same bits, a third of the time.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resdeploy.deploy.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes an input tensor; see the module's docstring.

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
    def _table(self) -> NDArray[np.float32]:
        """(3, 256): the normalised value of every byte in every channel."""
        values = np.arange(256, dtype=np.float32) / np.float32(255)
        mean = np.array(self.mean, np.float32)[:, None]
        std = np.array(self.std, np.float32)[:, None]
        return ((values - mean) / std).astype(np.float32)

    def apply(
        self, image: Image.Image, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Turn an RGB picture into a (3, H, W) float32 tensor, written into `out` when given.

        Raises:
            InputError: the picture is so long and narrow that the resized one would not fit
                Pillow's decompression-bomb limit, or its size is not the network's.
        """
        image = self._cropped(self._resized(image))
        height, width = self.input_size_px
        if image.size != (width, height):
            raise InputError(
                f"picture is {image.size[0]}x{image.size[1]} after preprocessing {self.name!r}, "
                f"expected {width}x{height}"
            )
        pixels = np.asarray(image)
        if out is None:
            out = np.empty((3, height, width), np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=out[channel], mode="clip")
        return out

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize_px is None:
            return image
        width, height = image.size
        if isinstance(self.resize_px, tuple):
            new_height, new_width = self.resize_px
        elif width <= height:
            new_width, new_height = self.resize_px, int(self.resize_px * height / width)
        else:
            new_width, new_height = int(self.resize_px * width / height), self.resize_px
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and new_width * new_height > limit:
            raise InputError(
                f"picture of {width}x{height} pixels would be resized to {new_width}x{new_height}, "
                f"over the limit of {limit} pixels: crop it first"
            )
        if (new_width, new_height) == (width, height):
            return image
        return image.resize((new_width, new_height), _FILTERS[self.interpolation])

    def _cropped(self, image: Image.Image) -> Image.Image:
        if self.crop_px is None:
            return image
        crop_height, crop_width = self.crop_px
        width, height = image.size
        if crop_width > width or crop_height > height:
            # torchvision pads first: the smaller half to the left and top, filled with black
            left, top = max(crop_width - width, 0) // 2, max(crop_height - height, 0) // 2
            padded = Image.new(image.mode, (max(width, crop_width), max(height, crop_height)))
            padded.paste(image, (left, top))
            image, (width, height) = padded, padded.size
        top = round((height - crop_height) / 2.0)
        left = round((width - crop_width) / 2.0)
        return image.crop((left, top, left + crop_width, top + crop_height))

    def to_json(self) -> dict[str, Any]:
        """Plain values, the form stored in the manifest, in the ONNX and in a JSON file."""
        return asdict(self)

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
        if self.interpolation not in _FILTERS:
            raise InputError(
                f"preprocessing {self.name!r}: interpolation {self.interpolation!r} is not one of "
                f"{', '.join(_FILTERS)}"
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
        return self


def named(name: str, input_size_px: int = 224) -> Preprocess:
    """The preprocessing called `name`, scaled to a square input of `input_size_px`.

    imagenet: shorter side to 256/224 of the input, centre crop, ImageNet mean and std.
    half: resize to the input without keeping the aspect, mean = std = 0.5.
    cifar: resize to the input without keeping the aspect (nothing to do for pictures of that
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


def resolve(name_or_file: str, input_size_px: int | None = None) -> Preprocess:
    """A named preprocessing, or the one a JSON file describes.

    Raises:
        InputError: neither, or the file's input size is not `input_size_px`.
    """
    path = Path(name_or_file)
    if path.suffix.lower() != ".json" and not path.is_file():
        return named(name_or_file, input_size_px or 224)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
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
    """The same preprocessing with some values replaced; its name tells that it was changed."""
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
