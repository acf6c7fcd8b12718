"""The networks and contracts of `batchnorm_statistics.py`, and what they see of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.images.files import find_images, open_image
from resdeploy.deploy.images.preprocess import IMAGENET_MEAN, Preprocess, named
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.proof.batchnorm_statistics import Layer, observe
from resdeploy.export.proof.pixels import decode, geometry, inputs

_HALF = (0.5, 0.5, 0.5)
_RETRAINING_IMAGES = 300
_DRAWN_FROM = 200


@dataclass(frozen=True)
class Network:
    """A checkpoint, how its images are prepared, and where images are."""

    file: str
    preprocess: Preprocess
    train: str
    test: str
    base: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """One comparison: key, the right value, the other; `retrained`: see the benchmark."""

    network: str
    key: str
    right: str
    other: str
    retrained: bool = False


_CIFAR = named("cifar", 32)
_FLOWERS_96 = replace(named("imagenet", 96), resize_px=110)
_CAFFE = {"stride": "1x1", "channels": "bgr", "pool_padding": "0"}
_CIFAR_MOBILENET = {"stem_stride": "1", "strides": "1,1,2,2,1,2,1"}
NETWORKS = {
    "flowers MobileNetV2": Network(
        "flowers_mobilenet_v2.pth", named("imagenet"), "flowers/train", "flowers/val", {}
    ),
    "CIFAR ResNet-20": Network("cifar10_resnet20.th", _CIFAR, "cifar10/calib", "cifar10/val", {}),
    "ResNeXt-50": Network(
        "flowers_resnext50_32x4d.pth", _FLOWERS_96, "flowers/train", "flowers/val", {}
    ),
    "flowers ResNet-18": Network(
        "flowers_resnet18.pth", _FLOWERS_96, "flowers/train", "flowers/val", {}
    ),
    "CIFAR ResNet-20, pool": Network(
        "cifar10_resnet20.th", _CIFAR, "cifar10/calib", "cifar10/val", {"pool": "yes"}
    ),
    "CIFAR MobileNetV2": Network(
        "flowers_mobilenet_v2.pth", _CIFAR, "cifar10/calib", "cifar10/val", _CIFAR_MOBILENET
    ),
    "dilated ResNeXt-50": Network(
        "flowers_resnext50_32x4d.pth", _FLOWERS_96, "flowers/train", "flowers/val", {}
    ),
    "Caffe ResNeXt-50": Network(
        "flowers_resnext50_32x4d.pth",
        replace(_FLOWERS_96, mean=IMAGENET_MEAN, std=(1 / 255,) * 3),
        "flowers/train",
        "flowers/val",
        _CAFFE,
    ),
}
KINDS = (
    Kind("flowers MobileNetV2", "normalization", "imagenet", "-1..1"),
    Kind("flowers MobileNetV2", "normalization", "imagenet", "0..1"),
    Kind("flowers MobileNetV2", "stem_stride", "2", "1"),
    Kind("flowers MobileNetV2", "strides", "1,2,2,2,1,2,1", "1,1,2,2,1,2,1"),
    Kind("flowers MobileNetV2", "channels", "rgb", "bgr"),
    Kind("CIFAR ResNet-20", "pool", "no", "yes"),
    Kind("CIFAR ResNet-20", "strides", "1,2,2", "1,2,1"),
    Kind("CIFAR ResNet-20", "shortcut_pad", "around", "after"),
    Kind("CIFAR ResNet-20", "normalization", "imagenet", "-1..1"),
    Kind("ResNeXt-50", "pool", "yes", "no"),
    Kind("ResNeXt-50", "channels", "rgb", "bgr"),
    Kind("ResNeXt-50", "stride", "3x3", "1x1"),
    Kind("ResNeXt-50", "pool_padding", "1", "0"),
    Kind("ResNeXt-50", "dilated", "no", "layer4"),
    Kind("ResNeXt-50", "dilated", "no", "yes"),
    Kind("flowers ResNet-18", "normalization", "imagenet", "-1..1"),
    Kind("flowers ResNet-18", "channels", "rgb", "bgr"),
    Kind("flowers ResNet-18", "pool", "yes", "no"),
    Kind("flowers ResNet-18", "stem_stride", "2", "1"),
    Kind("flowers ResNet-18", "strides", "1,2,2,2", "1,2,2,1"),
    Kind("CIFAR ResNet-20, pool", "pool", "yes", "no", retrained=True),
    Kind("CIFAR MobileNetV2", "stem_stride", "1", "2", retrained=True),
    Kind("dilated ResNeXt-50", "dilated", "yes", "no", retrained=True),
    Kind("dilated ResNeXt-50", "dilated", "yes", "layer4", retrained=True),
    Kind("Caffe ResNeXt-50", "normalization", "0..255 minus mean", "imagenet", retrained=True),
    Kind("Caffe ResNeXt-50", "channels", "bgr", "rgb", retrained=True),
    Kind("Caffe ResNeXt-50", "stride", "1x1", "3x3", retrained=True),
    Kind("Caffe ResNeXt-50", "pool_padding", "0", "1", retrained=True),
)
_NORMALIZATIONS = {
    "imagenet": (IMAGENET_MEAN, named("imagenet").std),
    "-1..1": (_HALF, _HALF),
    "0..1": ((0.0,) * 3, (1.0,) * 3),
    "0..255 minus mean": (IMAGENET_MEAN, (1 / 255,) * 3),
}


class Bench:
    """Networks as they were trained, or made so, and what they see; each contract runs once."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._retrained: dict[str, dict[str, torch.Tensor]] = {}
        self._seen: dict[tuple[Any, ...], tuple[Layer, ...]] = {}

    def layers(self, kind: Kind, value: str) -> tuple[Layer, ...]:
        """What the kind's network sees of the images that are drawn from, `kind.key` = `value`."""
        network = NETWORKS[kind.network]
        module, preprocess = self._build(network, kind.key, value)
        key = (kind.network, kind.retrained, *((kind.key, value) if value != kind.right else ()))
        if kind.retrained:
            module.load_state_dict(self._statistics(kind), strict=False)
        if key not in self._seen:
            paths = _some(find_images([self._data / network.test]), _DRAWN_FROM)
            pixels = decode(paths, [geometry(preprocess)])[geometry(preprocess)]
            self._seen[key] = observe(module, inputs(pixels, preprocess))
        return self._seen[key]

    def _build(self, network: Network, key: str, value: str) -> tuple[nn.Module, Preprocess]:
        checkpoint = read_checkpoint(self._data / "checkpoints" / network.file)
        architecture = identify(checkpoint)
        settings = {**architecture.settings, **network.base}
        preprocess = network.preprocess
        if key == "normalization":
            mean, std = _NORMALIZATIONS[value]
            preprocess = replace(preprocess, mean=mean, std=std)
        else:
            settings[key] = value
        return build_module(checkpoint, replace(architecture, settings=settings)), preprocess

    def _statistics(self, kind: Kind) -> dict[str, torch.Tensor]:
        """Running means and variances of the kind's right contract, from training images."""
        name = kind.network
        if name not in self._retrained:
            network = NETWORKS[kind.network]
            module, preprocess = self._build(network, kind.key, kind.right)
            paths = _some(find_images([self._data / network.train]), _RETRAINING_IMAGES)
            _retrain(module, paths, preprocess)
            self._retrained[name] = {
                key: value for key, value in module.state_dict().items() if "running_" in key
            }
        return self._retrained[name]


def _retrain(module: nn.Module, paths: Sequence[Path], preprocess: Preprocess) -> None:
    """Let the batch norms forget, and learn the statistics of augmented images."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_buffer("running_mean", torch.zeros(part.num_features))
            part.register_buffer("running_var", torch.ones(part.num_features))
            part.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))
            part.momentum = None  # the plain average over batches
    random = np.random.default_rng(0)
    module.train()
    with torch.no_grad():
        for start in range(0, len(paths), 30):
            images = [_augmented(path, preprocess, random) for path in paths[start : start + 30]]
            module(torch.from_numpy(np.stack(images)))
    module.eval()


def _augmented(path: Path, preprocess: Preprocess, random: np.random.Generator) -> Float32s:
    """Photographs: 35 to 100 % of the area, stretched by up to 4/3; CIFAR: shifted by up to 4."""
    image = open_image(path)
    height, width = preprocess.input_size_px
    if image.size == (width, height):
        left, top = (int(v) for v in random.integers(0, 9, 2))
        padded = Image.new("RGB", (width + 8, height + 8))
        padded.paste(image, (4, 4))
        image = padded.crop((left, top, left + width, top + height))
    else:
        area = image.size[0] * image.size[1] * random.uniform(0.35, 1)
        aspect = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        sides = np.sqrt(area * aspect), np.sqrt(area / aspect)
        w, h = (min(int(side), size) for side, size in zip(sides, image.size, strict=True))
        left, top = (
            int(random.uniform(0, image.size[0] - w)),
            int(random.uniform(0, image.size[1] - h)),
        )
        image = image.crop((left, top, left + w, top + h)).resize((width, height))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return replace(preprocess, resize_px=(height, width), crop_px=None).apply(image)


def _some(paths: Sequence[Path], count: int) -> list[Path]:
    order = np.random.default_rng(1).permutation(len(paths))[:count]
    return [paths[at] for at in order]
