"""What training scripts save beside the tensors in the same file.

torchvision's references   args: model, val_resize_size, val_crop_size, interpolation, dilation
timm's train.py            arch, args: mean, std, crop_pct, img_size, interpolation, output_stride
pytorch/examples           arch
OpenMMLab                  meta.cfg, the configuration as text: data_preprocessor
MadryLab's robustness      a normalizer module with the mean and the standard deviation;
RobustBench, TRADES        the same as buffers of the network or of a module before it
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resdeploy.export.checkpoint.formats.unpickle import Inert
from resdeploy.export.checkpoint.sidecars.dilation import dilated_by_arguments, dilated_by_mmlab
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar, shorter_side, triple

_COLOURS = 3
# what MadryLab, RobustBench and others call the mean -> and the standard deviation
_MEANS = {"new_mean": "new_std", "mean": "std", "mu": "sigma"}
_NUMBERS = r"\s*[\[(]([^\])]*)[\])]"


def read_training(root: object) -> list[Sidecar]:
    """What the object a file holds says of its network beside the tensors."""
    if not isinstance(root, Mapping):
        return []
    found = []
    arguments = root.get("args")
    fields = arguments.state if isinstance(arguments, Inert) else arguments
    if isinstance(fields, Mapping):
        found.append(_arguments(fields))
    if isinstance(root.get("arch"), str):
        found.append(Sidecar("arch", root["arch"]))
    meta = root.get("meta")
    if isinstance(meta, Mapping) and isinstance(meta.get("cfg"), str):
        found.append(_open_mmlab(meta["cfg"]))
    return [one for one in found if one.architecture or one.preprocess or one.settings]


def _arguments(fields: Mapping[str, Any]) -> Sidecar:
    name = fields.get("model") or fields.get("arch")
    try:
        preprocess = _pixels(fields)
    except (ValueError, TypeError, InputError):
        preprocess = None  # a rider that is not of this kind
    settings = dilated_by_arguments(fields)
    return Sidecar("args", name if isinstance(name, str) else None, settings, preprocess)


def _pixels(fields: Mapping[str, Any]) -> Preprocess | None:
    crop = fields.get("val_crop_size")
    resize = fields.get("val_resize_size")
    if crop is None and fields.get("img_size") and fields.get("crop_pct"):
        crop = fields["img_size"]
        resize = int(int(crop) / float(fields["crop_pct"]))
    if not isinstance(crop, int) or not isinstance(resize, int):
        return None
    mean = triple(list(fields.get("mean") or IMAGENET_MEAN))
    std = triple(list(fields.get("std") or IMAGENET_STD))
    interpolation = str(fields.get("interpolation") or "bilinear")
    return shorter_side("args", resize, crop, mean, std, interpolation)


def _open_mmlab(text: str) -> Sidecar:
    """mean and std are those of bytes, in RGB order if to_rgb, else of OpenCV's BGR."""
    settings = {"stride": "1x1"} if re.search(r"style\s*=\s*'caffe'", text) else {}
    settings.update(dilated_by_mmlab(text))
    mean, std = (_last(rf"{name}\s*={_NUMBERS}", text) for name in ("mean", "std"))
    preprocess = None
    if mean is not None and std is not None:
        to_rgb = re.search(r"(?:to_rgb|bgr_to_rgb)\s*=\s*(True|False)", text)
        step = 1
        if to_rgb and to_rgb[1] == "False":
            settings["channels"], step = "bgr", -1
        crop = _last(r"crop_size\s*=\s*(\d+)", text) or "224"
        edges = re.findall(r"\b(?:scale|size)\s*=\s*\(?(\d+)", text)
        resize = [int(edge) for edge in edges if int(edge) >= int(crop)] or [int(crop)]
        try:
            preprocess = shorter_side(
                "meta",
                resize[-1],
                int(crop),
                triple(_floats(mean)[::step], 1 / 255),
                triple(_floats(std)[::step], 1 / 255),
            )
        except (ValueError, InputError):
            preprocess = None
    return Sidecar("meta", None, settings, preprocess)


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text)
    return found[-1] if found else None


def _floats(text: str) -> list[float]:
    return [float(number) for number in text.replace(",", " ").split()]


def take_normalizer(
    tensors: dict[str, Float32s], notes: list[str]
) -> tuple[dict[str, Float32s], Sidecar | None]:
    """Without the module that subtracts the mean and divides, which becomes the preprocessing."""
    names: tuple[str, ...] = ()
    for name, values in tensors.items():
        parent, dot, last = name.rpartition(".")
        if last in _MEANS and values.size == _COLOURS:
            names = (name, f"{parent}{dot}{_MEANS[last]}")
            break
    if not names or names[1] not in tensors or tensors[names[1]].size != _COLOURS:
        return tensors, None
    mean, std = (tensors[name] for name in names)
    notes.append(f"{names[0]} and {names[1]} are the network's own normalization")
    rest = {name: values for name, values in tensors.items() if name not in names}
    return rest, Sidecar("the normalizer in the file", normalization=(_three(mean), _three(std)))


def segmentation(tensors: Mapping[str, Float32s]) -> Sidecar | None:
    """Around torchvision's segmentation heads the encoder's last stages are dilated."""
    heads = (name for name, values in tensors.items() if values.ndim == 4)
    if any(name.startswith(("classifier.", "aux_classifier.")) for name in heads) and any(
        re.match(r"backbone\.(layer|\d+\.)", name) for name in tensors
    ):
        return Sidecar("the segmentation head beside the encoder", settings={"dilated": "yes"})
    return None


def _three(values: Float32s) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 6) for value in np.ravel(values))
    return red, green, blue
