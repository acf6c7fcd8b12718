"""PNASNets of two cells. After Liu et al., arXiv:1712.00559, as kuangliu has them.

    A   relu(7x7(x) + pool(x))
    B   relu(1x1([relu(7x7(x) + 3x3(x)), relu(pool(x) + 5x5(x))]))

The convolutions but the 1x1 are depthwise; where a cell strides they widen, and a 1x1 convolution
widens the pool.
"""

import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.export.architectures.modules.small_images.staged import StagedNet

_CELLS = 6


class Spatial(nn.Module):
    """A grouped convolution, one group for each channel that comes in, and its norm."""

    def __init__(self, inputs: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv1 = nn.Conv2d(inputs, out, kernel, stride, padding, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""
        normed: torch.Tensor = self.bn1(self.conv1(x))
        return normed


class CellA(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.sep_conv1 = Spatial(inputs, out, 7, stride)
        if stride == 2:
            self.conv1, self.bn1 = nn.Conv2d(inputs, out, 1, bias=False), nn.BatchNorm2d(out)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """The maxima, as wide as the cell's output."""
        maxima = F.max_pool2d(x, 3, self.stride, 1)
        return self.bn1(self.conv1(maxima)) if self.stride == 2 else maxima

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        return F.relu(self.sep_conv1(x) + self.pooled(x))


class CellB(CellA):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__(inputs, out, stride)
        self.sep_conv2 = Spatial(inputs, out, 3, stride)
        self.sep_conv3 = Spatial(inputs, out, 5, stride)
        self.conv2, self.bn2 = nn.Conv2d(2 * out, out, 1, bias=False), nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the module's docstring."""
        left = F.relu(self.sep_conv1(x) + self.sep_conv2(x))
        right = F.relu(self.pooled(x) + self.sep_conv3(x))
        return F.relu(self.bn2(self.conv2(torch.cat([left, right], 1))))


class CellNet(StagedNet):
    """(N, 3, 32, 32) -> (N, classes): three stages of cells, and one that widens between them."""

    def __init__(self, cell: type[CellA], width: int, classes: int) -> None:
        stem, stages = width, list[nn.Module]()
        for number in range(3):
            if number:
                stages.append(cell(width, 2 * width, 2))
                width *= 2
            stages.append(nn.Sequential(*(cell(width, width, 1) for _ in range(_CELLS))))
        super().__init__(stem, stages, width, classes)
