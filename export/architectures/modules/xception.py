"""Xception of any layout."""

from collections import OrderedDict

import torch
from torch import nn

from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.inception.xception_layout import XceptionBlock, XceptionLayout
from resdeploy.export.architectures.modules.head import build_head


class Separable(nn.Module):
    """3x3 depthwise, then 1x1: (N, inputs, H, W) -> (N, out, H, W)."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, out, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same height and width."""
        y: torch.Tensor = self.pointwise(self.conv1(x))
        return y


class Block(nn.Module):
    """Separable convolutions and the shortcut around them."""

    def __init__(
        self, block: XceptionBlock, stride: int, *, first: bool, reads_activated: bool
    ) -> None:
        super().__init__()
        # a ReLU of its own, so that both paths can begin with it
        self.relu = nn.Identity() if first else nn.ReLU()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = block.inputs
        for place, out in zip(block.places(first=first), block.widths, strict=True):
            if layers:
                layers[str(place - 1)] = nn.ReLU()
            layers[str(place)] = Separable(inputs, out)
            layers[str(place + 1)] = nn.BatchNorm2d(out)
            inputs = out
        self.rep = nn.Sequential(layers)
        self.pool = nn.MaxPool2d(3, stride, 1) if block.projected else nn.Identity()
        self.skip: nn.Module = nn.Identity()
        self.skipbn: nn.Module = nn.Identity()
        if block.projected:
            self.skip = nn.Conv2d(block.inputs, inputs, 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(inputs)
        self.reads_activated = reads_activated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""
        activated = self.relu(x.clone())  # a ReLU in place must not reach the shortcut
        shortcut = self.skipbn(self.skip(activated if self.reads_activated else x))
        total: torch.Tensor = self.pool(self.rep(activated)) + shortcut
        return total


class Xception(nn.Module):
    """(N, 3, H, W) -> (N, classes); see `architectures.inception.xception`."""

    def __init__(self, layout: XceptionLayout, head: Head, settings: Settings) -> None:
        super().__init__()
        first, second = layout.stem
        stride, padding = int(settings["stem_stride"]), int(settings["stem_padding"])
        self.conv1 = nn.Conv2d(3, first, 3, stride, padding, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(first), nn.ReLU()
        self.conv2 = nn.Conv2d(first, second, 3, 1, padding, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(second), nn.ReLU()
        self.blocks = len(layout.blocks)
        strides = iter(map(int, settings["strides"].split(",")))
        activated = settings["shortcut_reads"] == "the-activated-input"
        for number, block in enumerate(layout.blocks, start=1):
            # weiaicunzai's last block takes its shortcut before the ReLU in any case
            reads = activated and number < self.blocks
            stride = next(strides) if block.projected else 1
            module = Block(block, stride, first=number == 1, reads_activated=reads)
            self.add_module(f"block{number}", module)
        width, (third, fourth) = layout.blocks[-1].widths[-1], layout.last
        self.conv3, self.bn3, self.relu3 = Separable(width, third), nn.BatchNorm2d(third), nn.ReLU()
        self.conv4, self.bn4 = Separable(third, fourth), nn.BatchNorm2d(fourth)
        self.relu4 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = build_head(head, settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        for number in range(1, self.blocks + 1):
            x = self.get_submodule(f"block{number}")(x)
        x = self.relu3(self.bn3(self.conv3(x)))
        x = self.relu4(self.bn4(self.conv4(x)))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits
