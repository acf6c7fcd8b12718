"""Dual path networks. Chen et al., arXiv:1707.01629.

A block's output is added to the first channels of what came in and joined to the rest:

    y = relu([x[:d] + b(x)[:d], x[d:], b(x)[d:]])

DPN-26 and DPN-92 as kuangliu has them, with a 3x3 stem.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.export.architectures.modules.small_images.staged import StagedNet

_INNER = (96, 192, 384, 768)
_ADDED = (256, 512, 1024, 2048)
_JOINED = (16, 32, 24, 128)
_GROUPS = 32


class DualPathBlock(nn.Module):
    """(N, inputs, H, W) -> (N, inputs + joined, H / stride, W / stride); more in the first one."""

    def __init__(
        self, inputs: int, inner: int, added: int, joined: int, stride: int, *, first: bool
    ) -> None:
        super().__init__()
        self.added, out = added, added + joined
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=_GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if first:
            self.shortcut.append(nn.Conv2d(inputs, out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        x = self.shortcut(x)
        at = self.added
        return F.relu(torch.cat([x[:, :at] + y[:, :at], x[:, at:], y[:, at:]], 1))


class DualPathNet(StagedNet):
    """(N, 3, 32, 32) -> (N, classes)."""

    def __init__(self, counts: Sequence[int], classes: int) -> None:
        stages = []
        width = 64
        for stage, (count, inner, added, joined) in enumerate(
            zip(counts, _INNER, _ADDED, _JOINED, strict=True), start=1
        ):
            blocks = nn.Sequential()
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(DualPathBlock(width, inner, added, joined, stride, first=index == 0))
                width = added + (index + 2) * joined
            stages.append(blocks)
        super().__init__(64, stages, width, classes)
