"""Networks without branches: VGG and AlexNet."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.modules.head import build_head
from resdeploy.export.architectures.plain.layout import (
    ALEXNET_KERNELS,
    ALEXNET_PLACES,
    VggLayout,
)


class PlainNet(nn.Module):
    """(N, 3, H, W) -> (N, classes): features, brought to `side` x `side` pixels, then the head."""

    def __init__(self, features: nn.Sequential, side: int, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.side, self.classifier = features, side, classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or the features as one row where the head is absent."""
        x = self.features(x)
        # at the size the network was made for there is nothing to average
        if tuple(x.shape[2:]) != (self.side, self.side):
            x = nn.functional.adaptive_avg_pool2d(x, self.side)
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def build_vgg(layout: VggLayout, head: Head, settings: Settings) -> nn.Module:
    """Layers under torchvision's numbers; a pool behind each stage."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    places = iter(layout.places())
    for widths in layout.stages:
        for _ in widths:
            place, inputs, out = next(places)
            layers[str(place)] = nn.Conv2d(inputs, out, 3, padding=1, bias=not layout.normed)
            if layout.normed:
                layers[str(place + 1)] = nn.BatchNorm2d(out)
            layers[str(place + 1 + layout.normed)] = nn.ReLU(inplace=True)
        layers[str(place + 2 + layout.normed)] = nn.MaxPool2d(2, 2)
    return PlainNet(nn.Sequential(layers), layout.side, build_head(head, settings))


def build_alexnet(widths: Sequence[int], side: int, head: Head, settings: Settings) -> nn.Module:
    """The larger of the two pads less and pools over 3x3; the smaller is made for 32 pixels."""
    small = side == 1
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    for place, out, kernel in zip(ALEXNET_PLACES, widths, ALEXNET_KERNELS, strict=True):
        stride, padding = (4, 5 if small else 2) if kernel == 11 else (1, kernel // 2)
        layers[str(place)] = nn.Conv2d(inputs, out, kernel, stride, padding)
        layers[str(place + 1)] = nn.ReLU(inplace=True)
        if place in (0, 3, 10):
            layers[str(place + 2)] = nn.MaxPool2d(2 if small else 3, 2)
        inputs = out
    return PlainNet(nn.Sequential(layers), side, build_head(head, settings))
