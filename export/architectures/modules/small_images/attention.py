"""Networks with squeeze and excitation in their blocks, as kuangliu has them.

SENet-18      pre-activation blocks (Hu et al., arXiv:1709.01507)
RegNetY-400M  bottlenecks that attend behind the grouped convolution (arXiv:2003.13678)
EfficientNet  B0 with a 3x3/1 stem and no layers between its blocks and the mean (arXiv:1905.11946)
"""

import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.export.architectures.modules.small_images.staged import StagedNet


class Attention(nn.Module):
    """x · σ(se2(act(se1(mean x)))), per channel; `silu` or ReLU inside."""

    def __init__(self, channels: int, inner: int, *, silu: bool) -> None:
        super().__init__()
        self.se1, self.se2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.act = nn.SiLU() if silu else nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        scale: torch.Tensor = self.se2(self.act(self.se1(F.adaptive_avg_pool2d(x, 1))))
        return x * scale.sigmoid()


class PreActivated(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != out:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, out, 1, stride, bias=False))
        self.fc1, self.fc2 = nn.Conv2d(out, out // 16, 1), nn.Conv2d(out // 16, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A shortcut's convolution reads the activated input."""
        y = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.conv2(F.relu(self.bn2(self.conv1(y))))
        scale: torch.Tensor = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(y, 1))))
        total: torch.Tensor = y * scale.sigmoid() + shortcut
        return total


class Bottleneck(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride), groups of 16 channels."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, out, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, stride, 1, groups=out // 16, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.se = Attention(out, round(inputs / 4), silu=False)
        self.conv3, self.bn3 = nn.Conv2d(out, out, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != out:
            self.shortcut.append(nn.Conv2d(inputs, out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """relu(norm(1x1(attended)) + shortcut(x))."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.se(F.relu(self.bn2(self.conv2(y))))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class Inverted(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride); without an expansion conv1 is idle."""

    def __init__(self, inputs: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.expands, self.adds = expansion != 1, stride == 1 and inputs == out
        inner = inputs * expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.se = Attention(inner, inputs // 4, silu=True)
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expanded, filtered, attended, narrowed."""
        y = F.silu(self.bn1(self.conv1(x))) if self.expands else x
        y = self.se(F.silu(self.bn2(self.conv2(y))))
        narrowed: torch.Tensor = self.bn3(self.conv3(y))
        return narrowed + x if self.adds else narrowed


class InvertedNet(nn.Module):
    """(N, 3, 32, 32) -> (N, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32)
        self.layers = nn.Sequential()
        width = 32
        for expansion, out, count, kernel, stride in _EFFICIENT:
            for index in range(count):
                strided = stride if index == 0 else 1
                self.layers.append(Inverted(width, out, kernel, strided, expansion))
                width = out
        self.linear = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits."""
        x = self.layers(F.silu(self.bn1(self.conv1(x))))
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


# expansion, channels, blocks, kernel, stride
_EFFICIENT = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)


def senet18(classes: int) -> nn.Module:
    """Two pre-activation blocks to a stage."""
    stages: list[nn.Module] = []
    width = 64
    for stride, out in ((1, 64), (2, 128), (2, 256), (2, 512)):
        stages.append(nn.Sequential(PreActivated(width, out, stride), PreActivated(out, out, 1)))
        width = out
    return StagedNet(64, stages, width, classes)


def regnet_y_400mf(classes: int) -> nn.Module:
    """Depths 1, 2, 7, 12; the first two stages keep the size."""
    stages: list[nn.Module] = []
    width = 64
    for stride, out, count in ((1, 32, 1), (1, 64, 2), (2, 160, 7), (2, 384, 12)):
        more = (Bottleneck(out, out, 1) for _ in range(count - 1))
        stages.append(nn.Sequential(Bottleneck(width, out, stride), *more))
        width = out
    return StagedNet(64, stages, width, classes)
