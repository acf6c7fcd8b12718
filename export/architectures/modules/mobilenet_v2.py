"""MobileNetV2 of any widths as a module, with torchvision's names and order of operations."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.modules.head import build_head


class Row(NamedTuple):
    """One block: channels inside and out, whether it has the first 1x1 and one on its shortcut."""

    hidden: int
    out: int
    widens: bool
    projects: bool
    stride: int


class InvertedResidual(nn.Module):
    """1x1, depthwise 3x3, 1x1; the input is added where the size and the width stay."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if row.widens:
            layers.append(_conv_bn_act(inputs, row.hidden, 1))
        layers += [
            _conv_bn_act(row.hidden, row.hidden, 3, row.stride, groups=row.hidden),
            nn.Conv2d(row.hidden, row.out, 1, bias=False),
            nn.BatchNorm2d(row.out),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds = row.stride == 1 and (inputs == row.out or row.projects)
        self.shortcut: nn.Module = nn.Identity()
        if row.projects:
            conv = nn.Conv2d(inputs, row.out, 1, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(row.out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, H / stride, W / stride)."""
        y: torch.Tensor = self.conv(x)
        return self.shortcut(x) + y if self.adds else y


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> (N, classes), or pooled features where the head is absent.

    `stem` is its channels and its kernel.
    """

    def __init__(
        self, stem: tuple[int, int], rows: Sequence[Row], last: int, head: Head, settings: Settings
    ) -> None:
        super().__init__()
        channels, kernel = stem
        first = _conv_bn_act(3, channels, kernel, int(settings["stem_stride"]))
        if "stem_padding" in settings:
            padding = int(settings["stem_padding"])
            first[0].padding = (padding, padding)
        layers: list[nn.Module] = [first]
        inputs = channels
        for row in rows:
            layers.append(InvertedResidual(inputs, row))
            inputs = row.out
        layers.append(_conv_bn_act(inputs, last, 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = build_head(head, settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        x = torch.flatten(self.avgpool(self.features(x)), 1)
        logits: torch.Tensor = self.classifier(x)
        return logits


def _conv_bn_act(
    inputs: int, out: int, kernel: int, stride: int = 1, groups: int = 1
) -> Conv2dNormActivation:
    return Conv2dNormActivation(
        inputs, out, kernel, stride, groups=groups, activation_layer=nn.ReLU6
    )
