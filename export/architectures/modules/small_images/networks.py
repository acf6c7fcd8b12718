"""The networks by name."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.export.architectures.modules.small_images.attention import (
    InvertedNet,
    regnet_y_400mf,
    senet18,
)
from resdeploy.export.architectures.modules.small_images.cells import CellA, CellB, CellNet
from resdeploy.export.architectures.modules.small_images.dual_path import DualPathNet
from resdeploy.export.architectures.modules.small_images.layer_aggregation import (
    LayerAggregation,
    SimpleTree,
    Tree,
)


class LeNet(nn.Module):
    """(N, 3, 32, 32) -> (N, classes). LeCun et al., 1998, with ReLU and max pools."""

    def __init__(self, first: int, second: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, first, 5), nn.Conv2d(first, second, 5)
        self.fc1, self.fc2 = nn.Linear(second * 5 * 5, 120), nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: torch.Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))
        return logits


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "dla_32px": partial(LayerAggregation, Tree),
    "dpn26_32px": partial(DualPathNet, (2, 2, 2, 2)),
    "dpn92_32px": partial(DualPathNet, (3, 4, 20, 3)),
    "efficientnet_b0_32px": InvertedNet,
    "lenet_32px": partial(LeNet, 6, 16),
    "lenet_wide_32px": partial(LeNet, 16, 32),
    "pnasnet_a_32px": partial(CellNet, CellA, 44),
    "pnasnet_b_32px": partial(CellNet, CellB, 32),
    "regnet_y_400mf_32px": regnet_y_400mf,
    "senet18_32px": senet18,
    "simple_dla_32px": partial(LayerAggregation, SimpleTree),
}
"""Name -> what makes it for a number of classes."""
