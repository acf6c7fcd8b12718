"""GoogLeNet of any layout."""

import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.inception.googlenet_layout import Conv, GoogLeNetLayout
from resdeploy.export.architectures.modules.head import build_head
from resdeploy.export.architectures.modules.transform_input import TransformInput


class BasicConv(nn.Module):
    """Convolution, batch norm where there is one, activation; the size stays at stride 1."""

    def __init__(self, conv: Conv, normed: bool, stride: int = 1) -> None:
        super().__init__()
        shape = (conv.inputs, conv.out, conv.kernel, stride, conv.kernel // 2)
        self.conv = nn.Conv2d(*shape, bias=not normed)
        self.bn = nn.BatchNorm2d(conv.out) if normed else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""
        y: torch.Tensor = self.relu(self.bn(self.conv(x)))
        return y


class WidthAsEps(nn.BatchNorm2d):
    """A norm whose eps is its number of channels, whatever the other norms have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        statistics = (self.running_mean, self.running_var)
        return F.batch_norm(x, *statistics, self.weight, self.bias, eps=float(self.num_features))


class Inception(nn.Module):
    """Four branches of one input, concatenated along the channels."""

    def __init__(self, convs: tuple[Conv, ...], normed: bool, *, width_as_eps: bool) -> None:
        super().__init__()
        by_name = {conv.name.partition(".")[2]: BasicConv(conv, normed) for conv in convs}
        if width_as_eps:
            middle = by_name["branch3.1"]
            middle.bn = WidthAsEps(middle.conv.out_channels)
        self.branch1 = by_name["branch1"]
        for branch in ("branch2", "branch3"):
            steps = [part for name, part in by_name.items() if name.startswith(f"{branch}.")]
            self.add_module(branch, nn.Sequential(*steps))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), by_name["branch4.1"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, sum of the branches, H, W)."""
        branches = [self.get_submodule(f"branch{number}")(x) for number in (1, 2, 3, 4)]
        return torch.cat(branches, 1)


class GoogLeNet(nn.Module):
    """(N, 3, H, W) -> (N, classes); see `architectures.inception.googlenet`."""

    def __init__(self, layout: GoogLeNetLayout, head: Head, settings: Settings) -> None:
        super().__init__()
        self.transform_input = (
            TransformInput() if settings.get("transform_input") == "yes" else nn.Identity()
        )
        self.stem = len(layout.stem)
        for index, conv in enumerate(layout.stem):
            stride = 2 if index == 0 and not layout.small else 1
            self.add_module(conv.name, BasicConv(conv, layout.normed, stride))
        self.modules_of_stage: dict[str, list[str]] = {"3": [], "4": [], "5": []}
        width_as_eps = settings.get("middle_eps") == "width"
        for convs in layout.modules:
            name = convs[0].name.partition(".")[0]
            self.add_module(name, Inception(convs, layout.normed, width_as_eps=width_as_eps))
            self.modules_of_stage[name.removeprefix("inception")[0]].append(name)
        self._place_pools(layout, settings)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = build_head(head, settings)

    def _place_pools(self, layout: GoogLeNetLayout, settings: Settings) -> None:
        def pool(kernel: int) -> nn.Module:
            if layout.small:
                return nn.MaxPool2d(3, 2, 1)
            return nn.MaxPool2d(kernel, 2, ceil_mode=True)

        self.maxpool1 = nn.Identity() if layout.small else pool(3)
        # two convolutions or more before the modules: a pool behind them, as the paper has it
        self.maxpool2 = pool(3) if len(layout.stem) > 1 else nn.Identity()
        self.maxpool3, self.maxpool4 = pool(3), pool(int(settings.get("pool4", "3")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        x = self.transform_input(x)
        for number in range(1, self.stem + 1):
            x = self.get_submodule(f"conv{number}")(x)
            x = self.maxpool1(x) if number == 1 else x
        x = self._stage("3", self.maxpool2(x))
        x = self._stage("5", self.maxpool4(self._stage("4", self.maxpool3(x))))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits

    def _stage(self, digit: str, x: torch.Tensor) -> torch.Tensor:
        for name in self.modules_of_stage[digit]:
            x = self.get_submodule(name)(x)
        return x
