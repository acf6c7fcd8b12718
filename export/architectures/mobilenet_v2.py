"""MobileNetV2 of any width multiplier and block setting, as torchvision has it.

    features.0 3x3/2 → inverted residual blocks → 1x1 convolution → global average → classifier

A block widens its input t times (1x1), filters each channel (3x3 depthwise) and narrows to c
channels (1x1, linear); with t = 1 there is no widening. t and c of every block are read from its
weights. Which blocks stride is not: where the blocks are those of the paper, n per stage, so are
the strides; otherwise a stage begins where t or c changes and the paper's strides are assumed in
turn. Sandler et al., arXiv:1801.04381, table 2.

Dialects: torchvision; tonylins' flat blocks (`conv.3` for `conv.1.0`) and `conv` for the last
convolution; timm's `conv_stem`, `blocks.S.B.conv_pw`, `conv_head`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.ops.misc import Conv2dNormActivation

from resdeploy.export.architectures import network
from resdeploy.export.architectures.network import Family, Head, Network, Settings, Shapes, conv_bn

# The paper's table 2: t, c, n and the stride of each stage's first block.
_PAPER = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Multipliers in use come first, so that one that rounds to the same widths does not take its name.
_USUAL_WIDTHS = (1.0, 1.4, 1.3, 0.75, 0.5, 0.35, 0.25, 0.1)
_WIDTHS = (*_USUAL_WIDTHS, *(step / 20 for step in range(1, 61)))
# tonylins numbers a block's layers through (3 and 6 follow activations), torchvision nests them.
_FLAT_WIDENING = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_FLAT_PLAIN = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
_TIMM_WIDENING = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "conv_pwl": "2",
    "bn3": "3",
}
_TIMM_PLAIN = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}


@dataclass(frozen=True)
class Block:
    """An inverted residual: channels inside and out; `widens` where it has the first 1x1."""

    hidden: int
    out: int
    widens: bool


@dataclass(frozen=True)
class Layout:
    """All widths of a network; `starts` are the indices of the blocks that begin a stage."""

    stem: int
    blocks: tuple[Block, ...]
    last: int
    starts: tuple[int, ...]


def _translate(shapes: Shapes) -> dict[str, str]:
    rename = _from_timm if "conv_stem.weight" in shapes else _from_tonylins
    names = rename(shapes)
    for canonical, name in network.translate_head(shapes, "classifier").items():
        names.pop(name, None)
        names[canonical] = name
    return names


def _from_tonylins(shapes: Shapes) -> dict[str, str]:
    flat = network.is_conv(shapes, "features.1.conv.0.weight")
    blocks = {name.split(".")[1] for name in shapes if re.match(r"features\.\d+\.conv\.", name)}
    names = {}
    for name in shapes:
        parts = name.split(".")
        if flat and len(parts) == 5 and parts[2] == "conv":
            widens = f"features.{parts[1]}.conv.6.weight" in shapes
            parts[3] = (_FLAT_WIDENING if widens else _FLAT_PLAIN).get(parts[3], parts[3])
        elif parts[0] == "conv":
            parts[0] = f"features.{len(blocks) + 1}"
        names[".".join(parts)] = name
    return names


def _from_timm(shapes: Shapes) -> dict[str, str]:
    found = {
        tuple(name.split(".")[1:3]) for name in shapes if re.match(r"blocks\.\d+\.\d+\.", name)
    }
    blocks = sorted(found, key=lambda block: (int(block[0]), int(block[1])))
    index = {block: number for number, block in enumerate(blocks, start=1)}
    ends = {"conv_stem": "0.0", "bn1": "0.1"}
    ends |= {"conv_head": f"{len(blocks) + 1}.0", "bn2": f"{len(blocks) + 1}.1"}
    names = {}
    for name in shapes:
        parts = name.split(".")
        if parts[0] in ends:
            parts[0] = f"features.{ends[parts[0]]}"
        elif parts[0] == "blocks" and len(parts) == 5:
            widens = f"blocks.{parts[1]}.{parts[2]}.conv_pwl.weight" in shapes
            layer = (_TIMM_WIDENING if widens else _TIMM_PLAIN).get(parts[3], parts[3])
            number = index[parts[1], parts[2]]
            parts = [f"features.{number}.conv.{layer}", parts[4]]
        names[".".join(parts)] = name
    return names


def _read(shapes: Shapes) -> Network | None:
    if not network.is_conv(shapes, "features.0.0.weight"):
        return None
    blocks: list[Block] = []
    while network.is_conv(shapes, f"{(name := f'features.{len(blocks) + 1}.conv')}.0.0.weight"):
        widens = network.is_conv(shapes, f"{name}.2.weight")
        narrow = f"{name}.{2 if widens else 1}.weight"
        if not network.is_conv(shapes, narrow):
            return None
        out, hidden = shapes[narrow][:2]
        blocks.append(Block(hidden, out, widens))
    last = f"features.{len(blocks) + 1}.0.weight"
    if not blocks or not network.is_conv(shapes, last):
        return None
    stem = shapes["features.0.0.weight"][0]
    layout = Layout(stem, tuple(blocks), shapes[last][0], _starts(stem, blocks))
    return _network(layout, network.read_head(shapes, "classifier"))


def _named(name: str, head: Head) -> Network | None:
    match = re.fullmatch(r"mobilenet_v2(?:_w(\d+(?:\.\d+)?))?", name)
    if match is None or float(match[1] or 1) <= 0:
        return None
    return _network(_paper_layout(float(match[1] or 1)), head)


def _paper_layout(width: float) -> Layout:
    """Table 2, every width multiplied and rounded as torchvision does: to 8, never under 90 %."""
    stem = inputs = _rounded(32 * width)
    blocks: list[Block] = []
    starts = []
    for t, c, n, _ in _PAPER:
        starts.append(len(blocks))
        for _ in range(n):
            out = _rounded(c * width)
            blocks.append(Block(inputs * t, out, t != 1))
            inputs = out
    return Layout(stem, tuple(blocks), _rounded(1280 * max(1.0, width)), tuple(starts))


def _rounded(channels: float) -> int:
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _width_of(stem: int, blocks: Sequence[Block]) -> float | None:
    """The multiplier of the paper's blocks that gives exactly these, or None."""
    for width in _WIDTHS:
        if _rounded(32 * width) == stem:
            layout = _paper_layout(width)
            if layout.blocks == tuple(blocks):
                return width
    return None


def _starts(stem: int, blocks: Sequence[Block]) -> tuple[int, ...]:
    if _width_of(stem, blocks) is not None:
        return _paper_layout(1.0).starts
    starts, before, inputs = [], None, stem
    for index, block in enumerate(blocks):
        stage = (block.hidden / inputs, block.widens, block.out)
        if stage != before:
            starts.append(index)
        before, inputs = stage, block.out
    return tuple(starts)


def _network(layout: Layout, head: Head) -> Network:
    expected = dict(conv_bn("features.0.0", "features.0.1", layout.stem, 3, 3))
    inputs = layout.stem
    for index, block in enumerate(layout.blocks, start=1):
        name = f"features.{index}.conv"
        if block.widens:
            expected.update(conv_bn(f"{name}.0.0", f"{name}.0.1", block.hidden, inputs, 1))
        depthwise, narrow = (1, 2) if block.widens else (0, 1)
        filters = f"{name}.{depthwise}"
        expected.update(conv_bn(f"{filters}.0", f"{filters}.1", block.hidden, 1, 3))
        ends = f"{name}.{narrow}", f"{name}.{narrow + 1}"
        expected.update(conv_bn(*ends, block.out, block.hidden, 1))
        inputs = block.out
    last = f"features.{len(layout.blocks) + 1}"
    expected.update(conv_bn(f"{last}.0", f"{last}.1", layout.last, inputs, 1))
    expected.update(network.head_shapes(head, "classifier", layout.last))
    return Network(
        name=_name(layout),
        features=layout.last,
        head=head,
        expected=expected,
        build=partial(_build, layout, head),
        assumptions=(
            network.strides(_usual_strides(layout)),
            network.activation("relu6"),
            network.BN_EPS,
            *network.head_assumptions(head),
        ),
        evidence=_evidence(layout),
    )


def _usual_strides(layout: Layout) -> str:
    stages = len(layout.starts)
    usual = [str(stride) for *_, stride in _PAPER] + ["1"] * stages
    return ",".join(usual[:stages])


def _name(layout: Layout) -> str:
    width = _width_of(layout.stem, layout.blocks)
    if width is None:
        return f"mobilenet_v2({', '.join(_stages(layout))})"
    name = "mobilenet_v2" if width == 1 else f"mobilenet_v2_w{width:g}"
    usual = layout.last == _paper_layout(width).last
    return name if usual else f"{name}({layout.last} features)"


def _stages(layout: Layout) -> list[str]:
    """Each stage as "t6 c24 n2"."""
    stages = []
    for start, end in zip(layout.starts, (*layout.starts[1:], len(layout.blocks)), strict=True):
        inputs = layout.blocks[start - 1].out if start else layout.stem
        first = layout.blocks[start]
        stages.append(f"t{first.hidden / inputs:.3g} c{first.out} n{end - start}")
    return stages


def _evidence(layout: Layout) -> tuple[str, ...]:
    count = len(layout.blocks)
    read = f"{count} inverted residual blocks, by stage: {', '.join(_stages(layout))}"
    width = _width_of(layout.stem, layout.blocks)
    if width is None:
        return read, "widths are those of no multiplier of the paper's blocks: taken as they are"
    return read, f"every width is the paper's times {width:g}, rounded to 8"


def _build(layout: Layout, head: Head, settings: Settings) -> nn.Module:
    digits = dict(zip(layout.starts, settings["strides"].split(","), strict=True))
    # Torchvision takes the stem from the multiplier; one row per block gives the rest exactly.
    multiplier = layout.stem / 32
    rows: list[list[float]] = []
    inputs = layout.stem
    for index, block in enumerate(layout.blocks):
        t = block.hidden / inputs
        if block.widens and t == 1:
            t = math.nextafter(1, 2)  # exactly 1 would leave the widening convolution out
        rows.append([t, block.out / multiplier, 1, int(digits.get(index, "1"))])
        inputs = block.out
    model: nn.Module = MobileNetV2(1, multiplier, rows, round_nearest=1)
    last = Conv2dNormActivation(inputs, layout.last, kernel_size=1, activation_layer=nn.ReLU6)
    model.set_submodule(f"features.{len(layout.blocks) + 1}", last)
    model.classifier = network.build_head(head, settings)
    return model


FAMILY = Family(
    name="mobilenet_v2",
    stems=("features.0.0.weight", "conv_stem.weight"),
    translate=_translate,
    read=_read,
    named=_named,
    references=("mobilenet_v2",),
)
