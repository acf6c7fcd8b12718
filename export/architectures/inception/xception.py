"""Xception of any widths.

    conv1 3x3/2, conv2 3x3 → block1 … blockN → conv3, conv4 (separable) → global average → fc

    block       (ReLU →) separable convolution → norm, two or three times (→ max pool)  + shortcut
    separable   3x3 depthwise → 1x1, no norm between

Chollet, arXiv:1610.02357, as tstandley wrote it and Cadene, timm and segmentation_models_pytorch
have it: three blocks that stride, any number that keep size and width, one that strides.
weiaicunzai's, for images of 32 pixels, strides later, and its ReLU in place reaches the shortcut.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Habits, Head, Network, Settings, choice
from resdeploy.export.architectures.inception.names import translate_head_only
from resdeploy.export.architectures.inception.xception_layout import XceptionBlock, XceptionLayout
from resdeploy.export.architectures.letters import word_of
from resdeploy.export.architectures.units import Shape, Shapes, Unit

if TYPE_CHECKING:
    from torch import nn

_SEPARABLE = "DPN"
_STRIDING = 3  # blocks before those that keep the size


def by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """The shortcut's convolution stands before its block's others, or behind them."""
    word = word_of(units)
    for block in (rf"PN(?:{_SEPARABLE}){{2}}", rf"(?:{_SEPARABLE}){{2}}PN"):
        pattern = (
            f"CNCN((?:{block}){{{_STRIDING}}})((?:(?:{_SEPARABLE}){{3}})*)({block})"
            f"((?:{_SEPARABLE}){{2}})(L?)"
        )
        found = re.fullmatch(pattern, word)
        if found is None:
            continue
        names = dict(zip(("conv1", "bn1", "conv2", "bn2"), (u.name for u in units), strict=False))
        middle = len(found[2]) // 9
        at = 4
        for number in range(1, _STRIDING + middle + 2):
            projected = number <= _STRIDING or number == _STRIDING + middle + 1
            roles = _roles(number, 2 if projected else 3)
            if projected:
                skip = [f"block{number}.skip", f"block{number}.skipbn"]
                roles = [*skip, *roles] if block.startswith("PN") else [*roles, *skip]
            names.update(zip(roles, (unit.name for unit in units[at:]), strict=False))
            at += len(roles)
        ends = ("conv3.conv1", "conv3.pointwise", "bn3", "conv4.conv1", "conv4.pointwise", "bn4")
        names.update(zip((*ends, "fc"), (unit.name for unit in units[at:]), strict=False))
        yield names


def _roles(number: int, count: int) -> list[str]:
    roles = []
    for place in XceptionBlock(0, (0,) * count, False).places(first=number == 1):
        rep = f"block{number}.rep"
        roles += [f"{rep}.{place}.conv1", f"{rep}.{place}.pointwise", f"{rep}.{place + 1}"]
    return roles


def _read(shapes: Shapes) -> Network | None:
    stem = [shapes.get(f"{name}.weight", ()) for name in ("conv1", "conv2")]
    last = [shapes.get(f"{name}.pointwise.weight", ()) for name in ("conv3", "conv4")]
    if any(len(shape) != 4 for shape in (*stem, *last)):
        return None
    blocks: list[XceptionBlock] = []
    width = stem[1][0]
    while block := _read_block(shapes, len(blocks) + 1, width):
        blocks.append(block)
        width = block.widths[-1]
    if len(blocks) < 2:
        return None
    layout = XceptionLayout((stem[0][0], stem[1][0]), tuple(blocks), (last[0][0], last[1][0]))
    return _network(layout, network.read_head(shapes, "fc"))


def _read_block(shapes: Shapes, number: int, inputs: int) -> XceptionBlock | None:
    widths: list[int] = []
    places = iter(range(number != 1, 100, 3))
    while (weight := f"block{number}.rep.{next(places)}.pointwise.weight") in shapes:
        widths.append(shapes[weight][0])
    projected = f"block{number}.skip.weight" in shapes
    return XceptionBlock(inputs, tuple(widths), projected) if widths else None


def _expected(layout: XceptionLayout, head: Head) -> dict[str, Shape]:
    first, second = layout.stem
    expected = dict(network.conv_bn("conv1", "bn1", first, 3, 3))
    expected.update(network.conv_bn("conv2", "bn2", second, first, 3))
    width = second
    for number, block in enumerate(layout.blocks, start=1):
        scope = f"block{number}"
        if block.projected:
            ends = (f"{scope}.skip", f"{scope}.skipbn")
            expected.update(network.conv_bn(*ends, block.widths[-1], width, 1))
        for place, out in zip(block.places(first=number == 1), block.widths, strict=True):
            names = (f"{scope}.rep.{place}", f"{scope}.rep.{place + 1}")
            expected.update(_separable(*names, width, out))
            width = out
    for number, out in zip((3, 4), layout.last, strict=True):
        expected.update(_separable(f"conv{number}", f"bn{number}", width, out))
        width = out
    expected.update(network.head_shapes(head, "fc", width))
    return expected


def _separable(name: str, norm: str, inputs: int, out: int) -> Iterable[tuple[str, Shape]]:
    yield f"{name}.conv1.weight", (inputs, 1, 3, 3)
    yield from network.conv_bn(f"{name}.pointwise", norm, out, inputs, 1)


def _network(layout: XceptionLayout, head: Head) -> Network:
    projected = sum(block.projected for block in layout.blocks)
    reads = "a block that begins with ReLU hands its shortcut {}"
    return Network(
        name="xception" if layout == _paper_layout() else f"xception({len(layout.blocks)} blocks)",
        features=layout.last[1],
        head=head,
        expected=_expected(layout, head),
        build=partial(_build, layout, head),
        assumptions=(
            choice("stem_stride", ("2", "1"), "the stem has stride {}"),
            choice("stem_padding", ("0", "1"), "the stem's convolutions pad {} pixels"),
            network.strides(",".join(["2"] * projected)),
            choice("shortcut_reads", ("the-input", "the-activated-input"), reads),
            network.activation("relu"),
            network.BN_EPS,
            *network.head_assumptions(head),
        ),
        evidence=(
            f"{len(layout.blocks)} blocks of separable convolutions, {projected} of them "
            "with a convolution on the shortcut",
        ),
        input_size_px=299,
        preprocess="half",
    )


def _paper_layout() -> XceptionLayout:
    entry = [XceptionBlock(i, (o, o), True) for i, o in ((64, 128), (128, 256), (256, 728))]
    middle = [XceptionBlock(728, (728,) * 3, False)] * 8
    exit_block = XceptionBlock(728, (728, 1024), True)
    return XceptionLayout((32, 64), (*entry, *middle, exit_block), (1536, 2048))


def _named(name: str, head: Head) -> Network | None:
    return _network(_paper_layout(), head) if name == "xception" else None


def _build(layout: XceptionLayout, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.xception import Xception

    return Xception(layout, head, settings)


def _habits(shapes: Shapes) -> Habits:
    if any(re.search(r"(^|\.)entry_flow\.conv3_residual\.", name) for name in shapes):
        settings = {"stem_stride": "1", "stem_padding": "1", "strides": "2,2,1,2"}
        settings["shortcut_reads"] = "the-activated-input"
        return Habits("weiaicunzai", settings, preprocess="cifar", input_size_px=32)
    return network.NO_HABITS


FAMILY = Family(
    name="xception",
    stems=("conv1.weight",),
    translate=translate_head_only,
    read=_read,
    named=_named,
    references=("xception",),
    by_position=by_position,
    habits=_habits,
)
