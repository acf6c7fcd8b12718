"""Deep layer aggregation. Yu et al., arXiv:1707.06484; the network and a simpler one of kuangliu's.

A tree's root, a 1x1 convolution, sees the outputs of its branches joined. In the simpler network a
tree of level n is two trees of level n - 1 in a row; in the other, smaller trees follow each other,
then two blocks, and the root sees all of them and a block on the tree's input.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride): two 3x3 convolutions, a shortcut."""

    def __init__(self, inputs: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != out:
            self.shortcut.append(nn.Conv2d(inputs, out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """relu(convolutions(x) + shortcut(x))."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class Root(nn.Module):
    """Joins several (N, C, H, W) and brings them to one (N, out, H, W)."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(inputs, out, 1, bias=False), nn.BatchNorm2d(out)

    def forward(self, branches: list[torch.Tensor]) -> torch.Tensor:
        """relu(norm(convolution(joined)))."""
        return F.relu(self.bn(self.conv(torch.cat(branches, 1))))


class SimpleTree(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, inputs: int, out: int, level: int, stride: int) -> None:
        super().__init__()
        self.root = Root(2 * out, out)
        if level == 1:
            self.left_tree: nn.Module = Block(inputs, out, stride)
            self.right_tree: nn.Module = Block(out, out)
        else:
            self.left_tree = SimpleTree(inputs, out, level - 1, stride)
            self.right_tree = SimpleTree(out, out, level - 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The root of the left branch and of the right one, which continues it."""
        left = self.left_tree(x)
        joined: torch.Tensor = self.root([left, self.right_tree(left)])
        return joined


class Tree(nn.Module):
    """(N, inputs, H, W) -> (N, out, H / stride, W / stride), of level 1 or 2."""

    def __init__(self, inputs: int, out: int, level: int, stride: int) -> None:
        super().__init__()
        self.level = level
        self.root = Root((2 if level == 1 else level + 2) * out, out)
        if level > 1:
            self.level_1 = Tree(inputs, out, 1, stride)
            self.prev_root = Block(inputs, out, stride)
        self.left_node = Block(inputs if level == 1 else out, out, stride if level == 1 else 1)
        self.right_node = Block(out, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The root of everything before it."""
        seen = []
        if self.level > 1:
            seen.append(self.prev_root(x))
            x = self.level_1(x)
            seen.append(x)
        left = self.left_node(x)
        joined: torch.Tensor = self.root([*seen, left, self.right_node(left)])
        return joined


class LayerAggregation(nn.Module):
    """(N, 3, 32, 32) -> (N, classes)."""

    def __init__(self, tree: type[SimpleTree] | type[Tree], classes: int) -> None:
        super().__init__()
        self.base, self.layer1, self.layer2 = _conv(3, 16), _conv(16, 16), _conv(16, 32)
        self.layer3, self.layer4 = tree(32, 64, 1, 1), tree(64, 128, 2, 2)
        self.layer5, self.layer6 = tree(128, 256, 2, 2), tree(256, 512, 1, 2)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits."""
        x = self.layer2(self.layer1(self.base(x)))
        x = self.layer6(self.layer5(self.layer4(self.layer3(x))))
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _conv(inputs: int, out: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, out, 3, 1, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())
