"""The frame that most networks for small images share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class StagedNet(nn.Module):
    """(N, 3, 32, 32) -> (N, classes): a stem, `stages` called layer1, layer2, …, and a mean."""

    def __init__(
        self, width: int, stages: Sequence[nn.Module], features: int, classes: int
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.count = len(stages)
        for number, stage in enumerate(stages, start=1):
            self.add_module(f"layer{number}", stage)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.count + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits
