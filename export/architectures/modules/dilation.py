"""Dilation in place of strides: torchvision's `replace_stride_with_dilation`, timm's output_stride.

    stage       stride s, dilation d  ->  stride 1, dilation d·s
    its first block still has the dilation d of the stage before, but for the second convolution
    of a basic block, which timm alone dilates

Chen et al., arXiv:1606.00915. At every s-th position such a stage computes what the strided one
does: global pooling sees nearly the same, and no weight has another shape.
"""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import nn


class PooledInPlace(nn.Module):
    """(N, C, H, W) -> the same: the mean of 2x2, zeros beyond the end (timm's AvgPool2dSame)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each position with those right of it and below."""
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1)


def stages_of(setting: str, count: int) -> tuple[int, ...]:
    """The numbers, from 1, of the stages out of `count` that the value of `dilated` means."""
    if setting in ("no", "yes"):
        return tuple(range(3, count + 1)) if setting == "yes" else ()
    return tuple(int(stage.removeprefix("layer")) for stage in setting.split(","))


def dilate(stages: Sequence[nn.Module], dilated: Collection[int]) -> None:
    """Change the stages whose number, from 1, is in `dilated`; those behind them follow."""
    dilation = 1
    for number, stage in enumerate(stages, start=1):
        before = dilation
        if number in dilated:
            dilation *= _unstride(stage)
        for index, block in enumerate(stage.children()):
            convs = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
            wide = [conv for conv in convs if conv.kernel_size[0] > 1]
            for place, conv in enumerate(wide):
                here = before if index == 0 and place == 0 else dilation
                conv.dilation = (here, here)
                conv.padding = (here * (conv.kernel_size[0] // 2),) * 2


def _unstride(stage: nn.Module) -> int:
    """Take the stride away from whatever has one; returns it."""
    strides = [1]
    for parent in list(stage.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Conv2d):
                strides.append(max(part.stride))
                part.stride = (1, 1)
            elif isinstance(part, nn.AvgPool2d):
                setattr(parent, name, PooledInPlace())
            elif isinstance(getattr(part, "stride", None), int):  # a shortcut that is no layer
                setattr(part, "stride", 1)  # noqa: B010 - modules have no types for it
    return max(strides)
