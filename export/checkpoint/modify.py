"""Settles in a finished module what every family leaves open.

bn_eps       of every batch norm
activation   every ReLU and ReLU6 outside the head; relu, relu6 or silu
padding      tf: a strided convolution or pool pads as TensorFlow's SAME does, the odd pixel
             below and to the right
channels     bgr: the first convolution's input channels are reversed, so the network still
             takes RGB
range        255: the first convolution's weights are multiplied, so the network still takes
             0 to 1
"""

from collections.abc import Iterable, Mapping
from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn

_COLOURS = 3


def apply_settings(module: nn.Module, settings: Mapping[str, str]) -> None:
    """Change `module` in place to what `settings` say; keys that are missing change nothing."""
    if "bn_eps" in settings:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eps = float(settings["bn_eps"])
    if "activation" in settings:
        _set_activation(module, settings["activation"])
    if settings.get("padding") == "tf":
        _pad_as_tensorflow(module)
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != _COLOURS:
        return
    if settings.get("channels") == "bgr":
        first.weight = nn.Parameter(first.weight.detach().flip(1), requires_grad=False)
    if settings.get("range") == "255":
        first.weight = nn.Parameter(first.weight.detach() * 255, requires_grad=False)


def _set_activation(module: nn.Module, name: str) -> None:
    kinds = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}
    wanted = kinds[name]
    for parent in list(module.modules()):
        for child_name, child in parent.named_children():
            in_head = child_name.endswith("_act")
            if isinstance(child, nn.ReLU | nn.ReLU6) and type(child) is not wanted and not in_head:
                setattr(parent, child_name, wanted(inplace=True))


class SamePadConv2d(nn.Conv2d):
    """TensorFlow's SAME: ceil(size / stride) pixels come out, the odd one is added at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, ceil(H / stride), ceil(W / stride))."""
        x = F.pad(x, _same(x, self.kernel_size, self.stride))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SamePadMaxPool2d(nn.MaxPool2d):
    """The same for a pool; what is added never is the maximum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = _pair(self.kernel_size), _pair(self.stride)
        return F.max_pool2d(F.pad(x, _same(x, kernel, stride), value=float("-inf")), kernel, stride)


def _same(x: torch.Tensor, kernel: Iterable[int], stride: Iterable[int]) -> list[int]:
    pads = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-int(size) // s) - 1) * s + k - int(size), 0)
        pads.append((total // 2, total - total // 2))
    return list(chain(*reversed(pads)))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _pad_as_tensorflow(module: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and max(child.stride) > 1 < max(child.kernel_size):
                setattr(parent, name, _same_pad_conv(child))
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, SamePadMaxPool2d(child.kernel_size, child.stride))


def _same_pad_conv(conv: nn.Conv2d) -> SamePadConv2d:
    with torch.device("meta"):
        padded = SamePadConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
    padded.weight, padded.bias = conv.weight, conv.bias
    return padded
