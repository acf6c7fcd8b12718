"""MobileNetV2 of any width multiplier and block setting, as torchvision has it.

    features.0 3x3/2 → inverted residual blocks → 1x1 convolution → global average → classifier

A block widens its input t times (1x1), filters each channel (3x3 depthwise) and narrows to c
channels (1x1, linear); with t = 1 there is no widening. t and c of every block are read from its
weights. Which blocks stride is not: where the blocks are those of the paper, n per stage, so are
the strides; otherwise a stage begins where t or c changes and the paper's strides are assumed in
turn. Sandler et al., arXiv:1801.04381, table 2.

Networks for small images keep the names and change the strides, of the stem too, which is why both
are assumed. kuangliu's has a 1x1 convolution on the shortcut where the width changes and the stride
is 1; there the strides can be read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import (
    Assumption,
    Family,
    Head,
    Network,
    Settings,
    choice,
    conv_bn,
)
from resdeploy.export.architectures.mobilenet_v2_names import (
    STEMS,
    by_position,
    habits,
    translate,
)
from resdeploy.export.architectures.units import Shapes

if TYPE_CHECKING:
    from torch import nn

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
# Strides of the stages in networks for 32x32 images.
_SMALL_IMAGES = ("1,1,2,2,1,2,1", "1,2,2,2,1,1,1")
_WIDTHS = (*_USUAL_WIDTHS, *(step / 20 for step in range(1, 61)))


@dataclass(frozen=True)
class Block:
    """An inverted residual: channels inside and out.

    `widens` where it has the first 1x1, `projects` where its shortcut has one.
    """

    hidden: int
    out: int
    widens: bool
    projects: bool = False


@dataclass(frozen=True)
class Layout:
    """All widths of a network; `starts` are the indices of the blocks that begin a stage."""

    stem: int
    stem_kernel: int
    blocks: tuple[Block, ...]
    last: int
    starts: tuple[int, ...]

    @property
    def small_images(self) -> bool:
        """Whether its form is one that only networks for 32x32 images have."""
        return self.stem_kernel == 1 or any(block.projects for block in self.blocks)


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
        projects = network.is_conv(shapes, f"features.{len(blocks) + 1}.shortcut.0.weight")
        blocks.append(Block(hidden, out, widens, projects))
    last = f"features.{len(blocks) + 1}.0.weight"
    if not blocks or not network.is_conv(shapes, last):
        return None
    stem, _, kernel, _ = shapes["features.0.0.weight"]
    layout = Layout(stem, kernel, tuple(blocks), shapes[last][0], _starts(stem, blocks))
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
    return Layout(stem, 3, tuple(blocks), _rounded(1280 * max(1.0, width)), tuple(starts))


def _rounded(channels: float) -> int:
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _width_of(stem: int, blocks: Sequence[Block]) -> float | None:
    """The multiplier of the paper's blocks that gives exactly these, or None."""
    for width in _WIDTHS:
        if _rounded(32 * width) == stem:
            layout = _paper_layout(width)
            if layout.blocks == tuple(replace(block, projects=False) for block in blocks):
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
    expected = dict(conv_bn("features.0.0", "features.0.1", layout.stem, 3, layout.stem_kernel))
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
        if block.projects:
            shortcut = f"features.{index}.shortcut"
            expected.update(conv_bn(f"{shortcut}.0", f"{shortcut}.1", block.out, inputs, 1))
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
        assumptions=(*_assumptions(layout), *network.head_assumptions(head)),
        evidence=_evidence(layout),
        input_size_px=32 if layout.small_images else 224,
        preprocess="cifar" if layout.small_images else "imagenet",
    )


def _assumptions(layout: Layout) -> tuple[Assumption, ...]:
    stem = ("1", "2") if layout.small_images else ("2", "1")
    projects = any(block.projects for block in layout.blocks)
    found = [
        choice("stem_stride", stem, "the first convolution has stride {}"),
        network.strides(_usual_strides(layout), *_SMALL_IMAGES),
        network.activation("relu" if projects else "relu6"),  # as kuangliu's
        network.BN_EPS,
    ]
    if layout.stem_kernel == 1:
        # weiaicunzai's, the one such network in circulation, pads its 1x1 convolution
        found.append(choice("stem_padding", ("1", "0"), "the first convolution pads by {}"))
    return tuple(found)


def _usual_strides(layout: Layout) -> str:
    stages = len(layout.starts)
    if any(block.projects for block in layout.blocks):
        inputs = [layout.stem, *(block.out for block in layout.blocks)]
        strided = (
            layout.blocks[start].out != inputs[start] and not layout.blocks[start].projects
            for start in layout.starts
        )
        return ",".join("2" if here else "1" for here in strided)
    usual = [str(stride) for *_, stride in _PAPER] + ["1"] * stages
    if layout.stem_kernel == 1:
        usual[: len(_PAPER)] = _SMALL_IMAGES[1].split(",")
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


def _build(layout: Layout, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.mobilenet_v2 import MobileNetV2, Row

    strides = dict(zip(layout.starts, settings["strides"].split(","), strict=True))
    rows = [
        Row(block.hidden, block.out, block.widens, block.projects, int(strides.get(index, "1")))
        for index, block in enumerate(layout.blocks)
    ]
    return MobileNetV2((layout.stem, layout.stem_kernel), rows, layout.last, head, settings)


FAMILY = Family(
    name="mobilenet_v2",
    stems=STEMS,
    translate=translate,
    read=_read,
    named=_named,
    references=("mobilenet_v2",),
    by_position=by_position,
    habits=habits,
)
