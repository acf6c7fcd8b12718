"""Small, narrow networks of every topology that export reads, as float graphs of 64 × 64 pixels."""

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
import onnx
import torch
from torch import nn
from torchvision.models import DenseNet, EfficientNet, MobileNetV3, RegNet, ShuffleNetV2
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.googlenet import Inception
from torchvision.models.inception import InceptionA, InceptionB
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.squeezenet import Fire

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace
from tests.builders import measure_batch_norms

_SIZE_PX = 64


class _Preact(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), the shortcut without a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
        convs = [nn.Conv2d(width, width, 3, 1, 1, bias=False) for _ in range(2)]
        self.convs = nn.ModuleList(convs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(torch.relu(norm(y)))
        return x + y


class _Separable(nn.Module):
    """Xception's middle block: x + separable(relu(separable(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[layer for _ in range(2) for layer in self._one(width)])

    def _one(self, width: int) -> tuple[nn.Module, ...]:
        depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)
        pointwise = nn.Conv2d(width, width, 1, bias=False)
        return nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.layers(x)
        return out


def _stem(width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()


def _head(width: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 7)


def _squeezenet() -> nn.Module:
    first, second = Fire(16, 8, 16, 16), Fire(32, 8, 16, 16)
    last = (nn.Conv2d(32, 7, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*_stem(16), first, nn.MaxPool2d(3, 2, ceil_mode=True), second, *last)


def _googlenet() -> nn.Module:
    blocks = [Inception(width, 8, 8, 16, 4, 8, 8) for width in (16, 40)]
    return nn.Sequential(*_stem(16), blocks[0], nn.MaxPool2d(3, 2, 1), blocks[1], *_head(40))


def _inception() -> nn.Module:
    between, last = (nn.Conv2d(232, 24, 1), nn.ReLU()), (nn.Conv2d(504, 16, 1), nn.ReLU())
    blocks = (InceptionA(16, 8), *between, InceptionB(24))
    return nn.Sequential(*_stem(16), *blocks, *last, *_head(16))


def _mobilenet_v3() -> nn.Module:
    config = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [
        config(16, 3, 16, 16, True, "RE", 2),
        config(16, 3, 48, 24, False, "HS", 2),
        config(24, 5, 72, 24, True, "HS", 1),
    ]
    module: nn.Module = MobileNetV3(blocks, last_channel=64, num_classes=7)
    return module


def _efficientnet() -> nn.Module:
    blocks = [
        MBConvConfig(1, 3, 1, 32, 16, 1, 1.0, 1.0),
        MBConvConfig(4, 3, 2, 16, 24, 2, 1.0, 1.0),
    ]
    module: nn.Module = EfficientNet(blocks, dropout=0.0, num_classes=7)
    return module


def _alexnet() -> nn.Module:
    features = (nn.Conv2d(3, 24, 7, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2))
    more = (nn.Conv2d(24, 48, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2))
    hidden = (nn.Linear(48 * 9, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU())
    return nn.Sequential(*features, *more, nn.Flatten(), *hidden, nn.Linear(96, 7))


_MODULES: Mapping[str, Callable[[], nn.Module]] = {
    "squeezenet": _squeezenet,
    "googlenet": _googlenet,
    "inception_v3": _inception,
    "densenet": partial(DenseNet, 8, (2, 2), 16, num_classes=7),
    "shufflenet_v2": partial(ShuffleNetV2, [1, 2, 1], [16, 24, 48, 96, 64], num_classes=7),
    "mobilenet_v3": _mobilenet_v3,
    "efficientnet": _efficientnet,
    "regnet": lambda: RegNet(
        BlockParams.from_init_params(4, 16, 8.0, 2.0, 8, se_ratio=0.25), num_classes=7
    ),
    "preact": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), *(_Preact(16) for _ in range(3)), nn.BatchNorm2d(16), *_head(16)
    ),
    "xception": lambda: nn.Sequential(*_stem(16), *(_Separable(16) for _ in range(3)), *_head(16)),
    "alexnet": _alexnet,
    "convnext": lambda: ConvNeXt(
        [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)], num_classes=7
    ),
}
TOPOLOGIES = tuple(name for name in _MODULES if name != "convnext")


@cache
def _graph(name: str) -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _MODULES[name]()
        measure_batch_norms(module, torch.from_numpy(noise(16, seed=7)))
    folded = fold_batchnorm(trace(module, input_size_px=_SIZE_PX))
    serialized: bytes = simplify(folded.model).SerializeToString()
    return serialized


def topology(name: str) -> onnx.ModelProto:
    """A fresh copy of the float graph of one of `TOPOLOGIES`, or of "convnext"."""
    return onnx.load_from_string(_graph(name))


def noise(images: int, *, seed: int) -> Float32s:
    """Images (N, 3, 64, 64) of noise at every scale, as photographs have it."""
    random = np.random.default_rng(seed)
    layers = []
    for cell in (32, 16, 8, 4, 1):
        coarse = random.standard_normal((images, 3, _SIZE_PX // cell, _SIZE_PX // cell), np.float32)
        layers.append(np.sqrt(cell) / 8 * coarse.repeat(cell, axis=2).repeat(cell, axis=3))
    return np.asarray(sum(layers), np.float32)
