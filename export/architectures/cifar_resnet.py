"""ResNets for small pictures: a 3x3 stem without pooling, then any number of stages.

    conv1 3x3/1 → layer1 … layerN → global average → fc

Three stages of basic blocks are the CIFAR networks of He et al. (arXiv:1512.03385, §4.2), depth
6n + 2 for n blocks per stage; four stages are kuangliu's, ResNet-18 to -152 for 32x32 pictures.
A stage that changes the width has either a 1x1 convolution on the shortcut (option B) or none
(option A): every second pixel, with zero channels added. Weights do not tell on which side they are
added; by default half on each, as in the implementation whose checkpoints are in circulation.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import count, takewhile

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from resdeploy.export.architectures import network
from resdeploy.export.architectures.network import (
    Assumption,
    Family,
    Head,
    Network,
    Settings,
    Shapes,
    conv_bn,
)
from resdeploy.export.architectures.resnet import (
    Blocks,
    block_evidence,
    block_shapes,
    place_strides,
    read_blocks,
    stride_assumption,
    translate,
)

# What kuangliu's four-stage networks of the ImageNet depths are called.
_FOUR_STAGES: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
_PADDING = Assumption(
    "shortcut_pad",
    "around",
    "around|after",
    "a shortcut without weights takes every second pixel and adds zero channels {} its own",
    "after",
)


class PaddedShortcut(nn.Module):
    """Option A: (N, C, H, W) -> (N, C + before + after, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.before, self.after, self.stride = before, after, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Written as slices and a pad, which `export.pad_shortcut` turns into one convolution."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class SmallResNet(nn.Module):
    """(N, 3, H, W) -> (N, classes); see the module's docstring."""

    def __init__(self, blocks: Blocks, stem: int, head: Head, settings: Settings) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.stages = len(blocks.layers)
        inputs = stem
        for stage, digit in enumerate(settings["strides"].split(",")):
            layer = _stage(blocks, stage, inputs, int(digit), settings)
            self.add_module(f"layer{stage + 1}", layer)
            inputs = blocks.planes[stage] * (4 if blocks.bottleneck else 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = network.build_head(head, settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 logits, or pooled features where the head is absent."""
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _stage(
    blocks: Blocks, stage: int, inputs: int, stride: int, settings: Settings
) -> nn.Sequential:
    planes = blocks.planes[stage]
    out = planes * (4 if blocks.bottleneck else 1)
    shortcut: nn.Module | None = None
    if blocks.projected[stage]:
        conv = nn.Conv2d(inputs, out, 1, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(out))
    elif inputs != out or stride != 1:
        added = out - inputs
        before = added // 2 if settings["shortcut_pad"] == "around" else 0
        shortcut = PaddedShortcut(before, added - before, stride)
    layers: list[nn.Module] = []
    for _ in range(blocks.layers[stage]):
        if blocks.bottleneck:
            block = Bottleneck(inputs, planes, 1, shortcut, blocks.groups, blocks.base_width)
        else:
            block = BasicBlock(inputs, planes, 1, shortcut)
        layers.append(block)
        inputs, shortcut = out, None
    return nn.Sequential(*layers)


def _read(shapes: Shapes) -> Network | None:
    stages = list(takewhile(lambda s: f"layer{s}.0.conv1.weight" in shapes, count(1)))
    blocks = read_blocks(shapes, stages) if stages else None
    if blocks is None or shapes["conv1.weight"][2] != 3 or not all(blocks.planes):
        return None
    stem = shapes["conv1.weight"][0]
    if any(width > out for width, out in _unprojected(blocks, stem)):
        return None  # a shortcut without weights cannot narrow
    built = _network(blocks, stem, network.read_head(shapes, "fc"))
    stem_seen = f"the first convolution is 3x3 with {stem} channels: no pooling after it"
    return replace(built, evidence=(stem_seen, *block_evidence(blocks, shapes)))


def _named(name: str, head: Head) -> Network | None:
    match = re.fullmatch(r"cifar_resnet(\d+)", name)
    n, rest = divmod(int(match[1]) - 2, 6) if match else (0, 0)
    if n < 1 or rest:
        return None
    blocks = Blocks(False, (n, n, n), (16, 32, 64), projected=(False, False, False))
    return _network(blocks, 16, head)


def _network(blocks: Blocks, stem: int, head: Head) -> Network:
    expected = dict(conv_bn("conv1", "bn1", stem, 3, 3))
    expected.update(block_shapes(blocks, stem))
    expected.update(network.head_shapes(head, "fc", blocks.features))
    padded = any(width != out for width, out in _unprojected(blocks, stem))
    return Network(
        name=_name(blocks, stem),
        features=blocks.features,
        head=head,
        expected=expected,
        build=partial(_build, blocks, stem, head),
        assumptions=(
            *((_PADDING,) if padded else ()),
            *stride_assumption(blocks),
            network.strides(
                ",".join("1" if stage == 0 else "2" for stage in range(len(blocks.layers)))
            ),
            network.activation("relu"),
            network.BN_EPS,
            *network.head_assumptions(head),
        ),
        evidence=(),
        input_size_px=32,
        preprocess="cifar",
    )


def _unprojected(blocks: Blocks, stem: int) -> Iterable[tuple[int, int]]:
    """Channels into and out of each stage whose shortcut has no weights."""
    inputs = stem
    for planes, projected in zip(blocks.planes, blocks.projected, strict=True):
        out = planes * (4 if blocks.bottleneck else 1)
        if not projected:
            yield inputs, out
        inputs = out


def _name(blocks: Blocks, stem: int) -> str:
    counts = blocks.layers
    usual = stem == blocks.planes[0] and all(
        planes == stem * 2**stage for stage, planes in enumerate(blocks.planes)
    )
    plain = (blocks.groups, blocks.base_width) == (1, 64)
    if usual and plain and stem == 16 and len(counts) == 3 and len(set(counts)) == 1:
        return f"cifar_resnet{counts[0] * (9 if blocks.bottleneck else 6) + 2}"
    depth = _FOUR_STAGES.get((blocks.bottleneck, counts))
    if usual and plain and stem == 64 and depth:
        return f"resnet{depth}_32px"
    kind = "bottleneck" if blocks.bottleneck else "basic"
    widths = "-".join(str(planes) for planes in blocks.planes)
    return f"cifar_resnet({kind} {'-'.join(map(str, counts))}, {widths} wide)"


def _build(blocks: Blocks, stem: int, head: Head, settings: Settings) -> nn.Module:
    model = SmallResNet(blocks, stem, head, settings)
    stages = [getattr(model, f"layer{stage + 1}") for stage in range(model.stages)]
    place_strides(stages, settings)
    return model


FAMILY = Family(
    name="cifar_resnet",
    stems=("conv1.weight",),
    translate=translate,
    read=_read,
    named=_named,
    references=("cifar_resnet20",),
)
