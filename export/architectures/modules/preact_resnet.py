"""Pre-activation ResNets of any layout."""

import torch
from torch import nn

from resdeploy.deploy.errors import InputError
from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.modules.head import build_head
from resdeploy.export.architectures.preact.layout import PreactBlock, PreactLayout


class Block(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, block: PreactBlock, stride: int, settings: Settings, *, first: bool) -> None:
        super().__init__()
        reads = "shortcut_reads" if block.projected else "first_shortcut" if first else ""
        self.reads_activated = settings.get(reads) == "the-activated-input"
        # a basic block strides in its first convolution
        in_first = not block.bottleneck or settings["stride"] == "1x1"
        outer, inner = (stride, 1) if in_first else (1, stride)
        kernel = 1 if block.bottleneck else 3
        inside, out = block.inside, block.out
        self.bn1, self.relu1 = nn.BatchNorm2d(block.inputs), nn.ReLU()
        self.conv1 = nn.Conv2d(block.inputs, inside, kernel, outer, kernel // 2, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(inside), nn.ReLU()
        if block.bottleneck:
            self.conv2 = nn.Conv2d(inside, inside, 3, inner, 1, groups=block.groups, bias=False)
            self.bn3, self.relu3 = nn.BatchNorm2d(inside), nn.ReLU()
            self.conv3 = nn.Conv2d(inside, out, 1, bias=False)
        else:
            self.conv2 = nn.Conv2d(inside, out, 3, 1, 1, bias=False)
        self.last_bn = nn.BatchNorm2d(out) if block.normed else None
        self.shortcut: nn.Module | None = None
        if block.projected:
            self.shortcut = nn.Conv2d(block.inputs, out, 1, stride, bias=False)
        elif stride != 1:
            raise InputError(
                f"--assume strides={settings['strides']}: a stage whose shortcut has no "
                "convolution cannot have stride 2, give it 1"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The residual branch plus the shortcut; no activation behind the sum."""
        activated = self.relu1(self.bn1(x))
        shortcut = activated if self.reads_activated else x
        if self.shortcut is not None:
            shortcut = self.shortcut(shortcut)
        y = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        if hasattr(self, "conv3"):
            y = self.conv3(self.relu3(self.bn3(y)))
        if self.last_bn is not None:
            y = self.last_bn(y)
        total: torch.Tensor = y + shortcut
        return total


class PreactResNet(nn.Module):
    """(N, 3, H, W) -> (N, classes); see `architectures.preact`."""

    def __init__(self, layout: PreactLayout, head: Head, settings: Settings) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(3) if layout.input_norm else nn.Identity()
        stride, padding = int(settings["stem_stride"]), layout.kernel // 2
        self.conv1 = nn.Conv2d(3, layout.stem, layout.kernel, stride, padding, bias=False)
        self.stem_norm = _NormRelu(layout.stem) if layout.stem_norm else nn.Identity()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if settings["pool"] == "yes" else nn.Identity()
        self.stages = len(layout.stages)
        strides = settings["strides"].split(",")
        for number, (blocks, digit) in enumerate(zip(layout.stages, strides, strict=True), start=1):
            layers = [
                Block(block, int(digit) if index == 0 else 1, settings, first=index == 0)
                for index, block in enumerate(blocks)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.bn = _NormRelu(layout.stages[-1][-1].out) if layout.last_norm else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = build_head(head, settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        x = self.maxpool(self.stem_norm(self.conv1(self.input_norm(x))))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(self.bn(x)), 1))
        return logits


class _NormRelu(nn.BatchNorm2d):
    """Batch norm and the activation behind it, under one name."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        activated: torch.Tensor = self.relu(super().forward(x))
        return activated
