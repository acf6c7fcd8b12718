"""MobileNetV1 of any widths."""

from collections.abc import Sequence

import torch
from torch import nn

from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.modules.head import build_head


class MobileNetV1(nn.Module):
    """(N, 3, H, W) -> (N, classes); `widths` are those of the stem and of each block."""

    def __init__(self, widths: Sequence[int], head: Head, settings: Settings) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, int(settings["stem_stride"]), 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        strides = map(int, settings["strides"].split(","))
        blocks = [
            _block(inputs, out, stride)
            for inputs, out, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        ]
        self.model = nn.Sequential(stem, *blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = build_head(head, settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(self.model(x)), 1))
        return logits


def _block(inputs: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )
