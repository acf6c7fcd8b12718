"""Residual networks of any shape as a module, with torchvision's names and order of operations."""

import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.deploy.errors import InputError
from resdeploy.export.architectures.family import Head, Settings
from resdeploy.export.architectures.modules.dilation import PooledInPlace, dilate, stages_of
from resdeploy.export.architectures.modules.head import build_head
from resdeploy.export.architectures.residual import DEEP_STEM, Block, Conv, Residual


class PaddedShortcut(nn.Module):
    """Option A: (N, C, H, W) -> (N, C + before + after, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.before, self.after, self.stride = before, after, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Written as slices and a pad, which `export.pad_shortcut` turns into one convolution."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class SqueezeExcitation(nn.Module):
    """x · σ(fc2(relu(fc1(mean x)))), per channel. Hu et al., arXiv:1709.01507."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(squeeze, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        scale: torch.Tensor = self.fc2(self.relu(self.fc1(self.avgpool(x))))
        return x * scale.sigmoid()


class LocalAttention(nn.Module):
    """x · σ(conv1d(mean x)), the convolution over channels (ECA). Wang et al., arXiv:1910.03151."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        channels = self.avgpool(x).flatten(2).transpose(1, 2)
        scale: torch.Tensor = self.conv(channels).transpose(1, 2).unsqueeze(3)
        return x * scale.sigmoid()


class ResidualBlock(nn.Module):
    """relu(attention(convolutions(x)) + shortcut(x)); `strides` has one for each convolution."""

    def __init__(
        self,
        block: Block,
        strides: tuple[int, ...],
        downsample: nn.Module | None,
        settings: Settings,
    ) -> None:
        super().__init__()
        self.count = len(block.convs)
        self.relus = self.count - (settings.get("squeeze_relu") != "yes")
        for number, (conv, stride) in enumerate(zip(block.convs, strides, strict=True), start=1):
            self.add_module(f"conv{number}", _conv(conv, stride))
            self.add_module(f"bn{number}", nn.BatchNorm2d(conv.out))
        self.relu = nn.ReLU(inplace=True)
        se: nn.Module | None = None
        if block.squeeze:
            se = SqueezeExcitation(block.out, block.squeeze)
        elif block.local_kernel:
            se = LocalAttention(block.local_kernel)
        self.se = se
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, H / stride, W / stride)."""
        y = x
        for number in range(1, self.count + 1):
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
            if number <= self.relus:
                y = self.relu(y)
        if self.se is not None:
            y = self.se(y)
        shortcut = x if self.downsample is None else self.downsample(x)
        out: torch.Tensor = self.relu(y + shortcut)
        return out


class ResidualNet(nn.Module):
    """(N, 3, H, W) -> (N, classes), or pooled features where the head is absent."""

    def __init__(self, spec: Residual, head: Head, settings: Settings) -> None:
        super().__init__()
        self.stages = len(spec.stages)
        self.conv1, self.bn1 = _stem(spec.stem, int(settings["stem_stride"]))
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = _pool(spec, settings)
        strides = settings["strides"].split(",")
        for number, (blocks, digit) in enumerate(zip(spec.stages, strides, strict=True), start=1):
            self.add_module(f"layer{number}", _stage(spec, blocks, int(digit), settings))
        dilated = stages_of(settings.get("dilated", "no"), self.stages)
        if dilated:
            dilate([self.get_submodule(f"layer{n + 1}") for n in range(self.stages)], dilated)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        # A first layer for twice the features is fed with maxima and means, as fastai's are.
        doubled = bool(head) and head[0].inputs == 2 * spec.features
        self.maxima = nn.AdaptiveMaxPool2d(1) if doubled else None
        self.fc = build_head(head, settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        pooled = self.avgpool(x)
        if self.maxima is not None:
            pooled = torch.cat([self.maxima(x), pooled], 1)
        logits: torch.Tensor = self.fc(torch.flatten(pooled, 1))
        return logits


def _stem(stem: tuple[Conv, ...], stride: int) -> tuple[nn.Module, nn.Module]:
    """The convolutions, and the norm of the last one."""
    norm = nn.BatchNorm2d(stem[-1].out)
    if len(stem) == 1:
        return _conv(stem[0], stride), norm
    layers = nn.Sequential()
    for (conv, following), layer in zip(DEEP_STEM, stem, strict=True):
        layers.add_module(conv.rpartition(".")[2], _conv(layer, stride))
        stride = 1
        if following != "bn1":
            index = int(following.rpartition(".")[2])
            layers.add_module(str(index), nn.BatchNorm2d(layer.out))
            layers.add_module(str(index + 1), nn.ReLU(inplace=True))
    return layers, norm


def _pool(spec: Residual, settings: Settings) -> nn.Module:
    if spec.pool is not None:
        layers = _conv(spec.pool, 2), nn.BatchNorm2d(spec.pool.out), nn.ReLU(inplace=True)
        return nn.Sequential(*layers)
    if settings["pool"] == "no":
        return nn.Identity()
    if settings.get("pool_padding") == "0":
        return nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.MaxPool2d(3, 2, 1)


def _stage(
    spec: Residual, blocks: tuple[Block, ...], stride: int, settings: Settings
) -> nn.Sequential:
    layers = nn.Sequential()
    for index, block in enumerate(blocks):
        here = stride if index == 0 else 1
        at = 1 if len(block.convs) > 2 and settings["stride"] == "3x3" else 0
        strides = tuple(here if place == at else 1 for place in range(len(block.convs)))
        shortcut = _shortcut(spec, block, here, settings)
        layers.append(ResidualBlock(block, strides, shortcut, settings))
    return layers


def _shortcut(spec: Residual, block: Block, stride: int, settings: Settings) -> nn.Module | None:
    if block.projection is not None:
        norm = nn.BatchNorm2d(block.out)
        if not spec.pooled_shortcut:
            if settings.get("shortcut_pool") != "yes" or stride == 1:
                return nn.Sequential(_conv(block.projection, stride), norm)
            return _PooledUnderUsualNames(_conv(block.projection, 1), norm)
        pool: nn.Module = nn.Identity()
        if stride != 1 and settings.get("shortcut_pool", "yes") == "yes":
            pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            stride = 1
        return nn.Sequential(pool, _conv(block.projection, stride), norm)
    added = block.out - block.inputs
    if added:
        before = added // 2 if settings["shortcut_pad"] == "around" else 0
        return PaddedShortcut(before, added - before, stride)
    if stride != 1:
        if "shortcut_pad" not in settings:
            raise InputError(
                f"--assume strides={settings['strides']}: a stage whose shortcut has no "
                "convolution cannot have stride 2, give it 1"
            )
        return PaddedShortcut(0, 0, stride)
    return None


class _PooledUnderUsualNames(nn.Sequential):
    """Convolution 0 and norm 1, with an average pool before them that has no place of its own."""

    stride: int = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, ceil(H / stride), ceil(W / stride))."""
        if self.stride == 1:
            x = PooledInPlace()(x)
        else:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        for layer in self:
            x = layer(x)
        return x


def _conv(conv: Conv, stride: int) -> nn.Conv2d:
    return nn.Conv2d(
        conv.inputs,
        conv.out,
        conv.kernel,
        stride,
        conv.kernel // 2,
        groups=conv.groups,
        bias=False,
    )
