"""ResNet, wide ResNet and ResNeXt of any depth, cardinality and base width.

As torchvision has them:

    conv1 7x7/2 → max pool/2 → layer1 … layer4 → global average → fc

Read from the shapes, W(x) being the shape of a weight (out, in per group, kernel, kernel):

    blocks per stage   the number of names layerS.B
    block              bottleneck where there is a conv3, else basic
    groups             width of conv2 over its input channels per group: W(conv2)[0] / W(conv2)[1]
    base width         W(layer1.0.conv2)[0] / groups

He et al., arXiv:1512.03385; Xie et al., arXiv:1611.05431; Zagoruyko and Komodakis,
arXiv:1605.07146. Torchvision strides in the 3x3 convolution of a bottleneck (Goyal et al.,
arXiv:1706.02677, "v1.5"), the Caffe original in the 1x1: weights are the same, so it is assumed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from resdeploy.deploy.errors import InputError
from resdeploy.export.architectures import network
from resdeploy.export.architectures.network import (
    Assumption,
    Family,
    Head,
    Network,
    Settings,
    Shape,
    Shapes,
    conv_bn,
)

_PLANES = (64, 128, 256, 512)
_STRIDES = "1,2,2,2"
# A body saved as nn.Sequential(*list(resnet.children())[:-1]) numbers what torchvision names.
_NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass(frozen=True)
class Blocks:
    """The residual stages of a network.

    Attributes:
        bottleneck: 1x1, 3x3, 1x1 convolutions rather than two 3x3.
        layers: blocks per stage; planes: torchvision's name for the stage's width before expansion.
        groups, base_width: of a bottleneck's 3x3 convolution; 1 and 64 otherwise.
        projected: per stage, whether its first block has a 1x1 convolution on the shortcut.
    """

    bottleneck: bool
    layers: tuple[int, ...]
    planes: tuple[int, ...] = _PLANES
    groups: int = 1
    base_width: int = 64
    projected: tuple[bool, ...] = (False, True, True, True)

    @property
    def features(self) -> int:
        """Channels that come out of the last stage."""
        return self.planes[-1] * (4 if self.bottleneck else 1)


_TORCHVISION = {
    "resnet18": Blocks(False, (2, 2, 2, 2)),
    "resnet34": Blocks(False, (3, 4, 6, 3)),
    "resnet50": Blocks(True, (3, 4, 6, 3)),
    "resnet101": Blocks(True, (3, 4, 23, 3)),
    "resnet152": Blocks(True, (3, 8, 36, 3)),
    "resnext50_32x4d": Blocks(True, (3, 4, 6, 3), groups=32, base_width=4),
    "resnext101_32x8d": Blocks(True, (3, 4, 23, 3), groups=32, base_width=8),
    "resnext101_64x4d": Blocks(True, (3, 4, 23, 3), groups=64, base_width=4),
    "wide_resnet50_2": Blocks(True, (3, 4, 6, 3), base_width=128),
    "wide_resnet101_2": Blocks(True, (3, 4, 23, 3), base_width=128),
}


def translate(shapes: Shapes) -> dict[str, str]:
    """Torchvision's names for kuangliu's `shortcut`, a numbered Sequential, and any head."""
    numbered = "4.0.conv1.weight" in shapes
    names = {}
    for name in shapes:
        canonical = re.sub(r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.", name)
        first, _, rest = canonical.partition(".")
        if numbered and first in _NUMBERED:
            canonical = f"{_NUMBERED[first]}.{rest}"
        names[canonical] = name
    for canonical, name in network.translate_head(shapes, "fc").items():
        names.pop(name, None)
        names[canonical] = name
    return names


def read_blocks(shapes: Shapes, stages: Sequence[int]) -> Blocks | None:
    """The stages layer1, layer2, … numbered by `stages`, or None if the first is not residual."""
    if not (network.is_conv(shapes, "conv1.weight") and _is_block(shapes, "layer1.0")):
        return None
    first = shapes["layer1.0.conv2.weight"]
    bottleneck = "layer1.0.conv3.weight" in shapes
    groups = max(1, first[0] // first[1]) if bottleneck else 1
    layers, planes, projected = [], [], []
    for stage in stages:
        count = 0
        while f"layer{stage}.{count}.conv1.weight" in shapes:
            count += 1
        last = f"layer{stage}.0.conv{3 if bottleneck else 2}.weight"
        layers.append(count)
        planes.append(shapes.get(last, (0,))[0] // (4 if bottleneck else 1))
        projected.append(f"layer{stage}.0.downsample.0.weight" in shapes)
    base_width = 64
    if bottleneck and planes[0]:
        base_width = round(first[0] / groups * 64 / planes[0])
    return Blocks(bottleneck, tuple(layers), tuple(planes), groups, base_width, tuple(projected))


def block_shapes(blocks: Blocks, inputs: int) -> Iterable[tuple[str, Shape]]:
    """Names and shapes of all stages, fed by `inputs` channels."""
    for stage, planes in enumerate(blocks.planes):
        width = int(planes * (blocks.base_width / 64)) * blocks.groups
        out = planes * (4 if blocks.bottleneck else 1)
        for index in range(blocks.layers[stage]):
            name = f"layer{stage + 1}.{index}"
            conv = [f"{name}.conv{number}" for number in (1, 2, 3)]
            norm = [f"{name}.bn{number}" for number in (1, 2, 3)]
            if blocks.bottleneck:
                yield from conv_bn(conv[0], norm[0], width, inputs, 1)
                yield from conv_bn(conv[1], norm[1], width, width // blocks.groups, 3)
                yield from conv_bn(conv[2], norm[2], out, width, 1)
            else:
                yield from conv_bn(conv[0], norm[0], planes, inputs, 3)
                yield from conv_bn(conv[1], norm[1], planes, planes, 3)
            if index == 0 and blocks.projected[stage]:
                yield from conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", out, inputs, 1)
            inputs = out


def place_strides(stages: Iterable[nn.Sequential], settings: Settings) -> None:
    """Give each stage's first block its stride, in its 3x3 or its first convolution."""
    for stage, digit in zip(stages, settings["strides"].split(","), strict=True):
        block: Any = stage[0]
        stride = int(digit)
        convs = [block.conv1, block.conv2]
        at = 1 if isinstance(block, Bottleneck) and settings["stride"] == "3x3" else 0
        convs[at].stride = (stride, stride)
        convs[1 - at].stride = (1, 1)
        if isinstance(block.downsample, nn.Sequential):
            projection: Any = block.downsample[0]
            projection.stride = (stride, stride)
        elif block.downsample is None and stride != 1:
            raise InputError(
                f"--assume strides={settings['strides']}: a stage whose shortcut has no "
                "convolution cannot have stride 2, give it 1"
            )


def stride_assumption(blocks: Blocks) -> tuple[Assumption, ...]:
    """Where a bottleneck strides; a basic block has no choice."""
    if not blocks.bottleneck:
        return ()
    sentence = "a bottleneck that halves the resolution does so in its {} convolution"
    return (Assumption("stride", "3x3", "3x3|1x1", sentence, "1x1"),)


def block_evidence(blocks: Blocks, shapes: Shapes) -> tuple[str, ...]:
    """How `blocks` were read, as sentences."""
    counts = "-".join(str(count) for count in blocks.layers)
    if not blocks.bottleneck:
        return (f"basic blocks (two 3x3 convolutions), {counts} per stage",)
    width, per_group = shapes["layer1.0.conv2.weight"][:2]
    return (
        f"bottleneck blocks (there is a conv3), {counts} per stage",
        f"layer1.0.conv2 is {width} wide with {per_group} input channels per group: "
        f"{blocks.groups} group{'s' if blocks.groups > 1 else ''}, base width {blocks.base_width}",
    )


def _is_block(shapes: Shapes, name: str) -> bool:
    return network.is_conv(shapes, f"{name}.conv1.weight") and network.is_conv(
        shapes, f"{name}.conv2.weight"
    )


def _read(shapes: Shapes) -> Network | None:
    blocks = read_blocks(shapes, (1, 2, 3, 4))
    if blocks is None or shapes["conv1.weight"][2] != 7 or not all(blocks.layers):
        return None
    # Only depth, groups and base width vary in torchvision's class; the rest must be as it has it.
    blocks = replace(blocks, planes=_PLANES, projected=(blocks.bottleneck, True, True, True))
    if not blocks.bottleneck:
        blocks = replace(blocks, groups=1, base_width=64)
    else:
        width = shapes["layer1.0.conv2.weight"][0]
        blocks = replace(blocks, base_width=max(1, width // blocks.groups))
    head = network.read_head(shapes, "fc")
    return replace(_network(blocks, head), evidence=block_evidence(blocks, shapes))


def _named(name: str, head: Head) -> Network | None:
    blocks = _TORCHVISION.get(name)
    if blocks is None:
        return None
    return _network(replace(blocks, projected=(blocks.bottleneck, True, True, True)), head)


def _network(blocks: Blocks, head: Head) -> Network:
    expected = dict(conv_bn("conv1", "bn1", 64, 3, 7))
    expected.update(block_shapes(blocks, 64))
    expected.update(network.head_shapes(head, "fc", blocks.features))
    return Network(
        name=_name(blocks),
        features=blocks.features,
        head=head,
        expected=expected,
        build=partial(_build, blocks, head),
        assumptions=(
            *stride_assumption(blocks),
            network.strides(_STRIDES),
            network.activation("relu"),
            network.BN_EPS,
            *network.head_assumptions(head),
        ),
        evidence=(),
    )


def _name(blocks: Blocks) -> str:
    for name, known in _TORCHVISION.items():
        if replace(blocks, projected=known.projected) == known:
            return name
    counts = "-".join(str(count) for count in blocks.layers)
    if not blocks.bottleneck:
        return f"resnet(basic {counts})"
    if (blocks.groups, blocks.base_width) == (1, 64):
        return f"resnet(bottleneck {counts})"
    return f"resnet({counts}, {blocks.groups}x{blocks.base_width}d)"


def _build(blocks: Blocks, head: Head, settings: Settings) -> nn.Module:
    model: nn.Module = ResNet(
        Bottleneck if blocks.bottleneck else BasicBlock,
        list(blocks.layers),
        groups=blocks.groups,
        width_per_group=blocks.base_width,
    )
    place_strides([getattr(model, f"layer{stage}") for stage in (1, 2, 3, 4)], settings)
    model.fc = network.build_head(head, settings)
    return model


FAMILY = Family(
    name="resnet",
    stems=("conv1.weight", "0.weight"),
    translate=translate,
    read=_read,
    named=_named,
    references=("resnet18", "resnet50"),
)
