"""What torchvision's pretrained Inception networks do to their input themselves."""

import torch
from torch import nn

from resdeploy.deploy.images.preprocess import IMAGENET_MEAN, IMAGENET_STD


class TransformInput(nn.Module):
    """Images normalized with ImageNet's mean and std become images normalized with 0.5 and 0.5.

    `fold_input` takes it off the graph again, since preprocessing can do it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) of the same shape."""
        mean, std = (
            torch.tensor(values, dtype=x.dtype, device=x.device).reshape(1, 3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        return x * (std / 0.5) + (mean - 0.5) / 0.5
