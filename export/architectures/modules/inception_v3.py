"""Inception v3 as torchvision's module, and as weiaicunzai changed it for small images."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.inception import BasicConv2d, Inception3, InceptionD

from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.modules.head import build_head
from resdeploy.export.architectures.modules.transform_input import TransformInput


# torchvision has no types, so that mypy takes its classes for Any
class _Transformed(Inception3):  # type: ignore[misc]  # see above
    """Torchvision's network; its own way of transforming the input is spread over six nodes."""

    def __init__(self) -> None:
        super().__init__(aux_logits=False, transform_input=False, init_weights=False)
        self.normalize: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        logits: torch.Tensor = super().forward(self.normalize(x))
        return logits


class _AveragingReduction(InceptionD):  # type: ignore[misc]  # as above
    """Mixed_7a with a mean where torchvision's takes the maximum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, 512 + inputs, (H - 3) // 2 + 1, (W - 3) // 2 + 1)."""
        large = self.branch7x7x3_2(self.branch7x7x3_1(x))
        large = self.branch7x7x3_4(self.branch7x7x3_3(large))
        branches = [self.branch3x3_2(self.branch3x3_1(x)), large, F.avg_pool2d(x, 3, 2)]
        return torch.cat(branches, 1)


def build_inception_v3(head: Head, settings: Settings, *, small: bool) -> nn.Module:
    """`settings["transform_input"]` is "yes" or "no"; `small` is for images of 32 pixels."""
    model = _Transformed()
    if settings["transform_input"] == "yes":
        model.normalize = TransformInput()
    if small:
        _make_small(model)
    model.fc = build_head(head, settings)
    return model


def _make_small(model: Inception3) -> None:
    model.maxpool1 = model.maxpool2 = nn.Identity()
    model.Conv2d_1a_3x3.conv.stride = (1, 1)
    model.Conv2d_1a_3x3.conv.padding = model.Conv2d_2a_3x3.conv.padding = (1, 1)
    for module in (model.Mixed_5b, model.Mixed_5c, model.Mixed_5d):
        old = module.branch_pool.conv
        widths = (old.in_channels, old.out_channels)
        module.branch_pool = BasicConv2d(*widths, kernel_size=3, padding=1)
    for module in (model.Mixed_6b, model.Mixed_6c, model.Mixed_6d, model.Mixed_6e):
        inside = module.branch7x7_2.conv.out_channels
        module.branch7x7_2 = BasicConv2d(inside, inside, kernel_size=(7, 1), padding=(3, 0))
        module.branch7x7_3 = BasicConv2d(inside, 192, kernel_size=(1, 7), padding=(0, 3))
    model.Mixed_7a = _AveragingReduction(768)
