"""MobileNetV1 of any widths.

    model.0 3x3/2 → (3x3 depthwise → 1x1) x n → global average → fc

with a batch norm and an activation behind every convolution. Widths are read; which blocks stride
is not in the weights: the paper's 13 blocks have the paper's strides, in others a block strides
where the width doubles. Howard et al., arXiv:1704.04861, table 1.

Dialects: marvis and its many copies (`model.N.0/.1/.3/.4`), timm (`blocks.S.B.conv_dw`), Hugging
Face (`mobilenet_v1.layer.N`), kuangliu (`layers.N.conv1`), weiaicunzai (`conv2.0.depthwise.0`).
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Habits, Head, Network, Settings, conv_bn
from resdeploy.export.architectures.letters import word_of
from resdeploy.export.architectures.units import Shape, Shapes, Unit

if TYPE_CHECKING:
    from torch import nn

# Table 1: what comes out of the stem and of each block, and the blocks' strides.
_PAPER = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_PAPER_STRIDES = "1,2,1,2,1,2,1,1,1,1,1,2,1"
_PARTS = ("0", "1", "3", "4")  # depthwise, its norm, pointwise, its norm


def by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """A 3x3 convolution, then depthwise and 1x1 in turn, each with a norm."""
    found = re.fullmatch("CN((?:DNPN)+)([LP]?)", word_of(units))
    if found is None:
        return
    names = {"model.0.0": units[0].name, "model.0.1": units[1].name}
    for block in range(len(found[1]) // 4):
        for part, unit in zip(_PARTS, units[2 + 4 * block :], strict=False):
            names[f"model.{block + 1}.{part}"] = unit.name
    if found[2]:
        names["fc"] = units[-1].name
    yield names


def _translate(shapes: Shapes) -> dict[str, str]:
    stages = _stage_starts(shapes)
    names = {}
    for name in shapes:
        module, _, part = name.rpartition(".")
        names[f"{_module(module, stages)}.{part}"] = name
    for ours, name in network.translate_head(shapes, "fc").items():
        names = {other: own for other, own in names.items() if own != name}
        names[ours] = name
    return names


def _stage_starts(shapes: Shapes) -> dict[str, int]:
    """The number of blocks before each stage of timm's and weiaicunzai's names."""
    blocks: dict[str, set[str]] = {}
    for name in shapes:
        if match := re.match(r"(blocks\.\d+|conv[1-4]|stem)\.(\d+)\.(conv_dw|depthwise)", name):
            blocks.setdefault(match[1], set()).add(match[2])
    starts, count = {}, 1
    for stage in sorted(blocks, key=lambda name: (name != "stem", name)):
        starts[stage], count = count, count + len(blocks[stage])
    return starts


_TIMM = {"conv_dw": "0", "bn1": "1", "conv_pw": "3", "bn2": "4"}
_KUANGLIU = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4"}
_WEIAICUNZAI = {"depthwise.0": "0", "depthwise.1": "1", "pointwise.0": "3", "pointwise.1": "4"}
_STEMS = {
    **{"conv_stem": "model.0.0", "bn1": "model.0.1", "conv1": "model.0.0"},
    **{"stem.0.conv": "model.0.0", "stem.0.bn": "model.0.1"},
    "conv_stem.convolution": "model.0.0",
    "conv_stem.normalization": "model.0.1",
}


def _module(name: str, starts: Mapping[str, int]) -> str:
    name = name.removeprefix("mobilenet_v1.")
    if match := re.fullmatch(r"(blocks\.\d+)\.(\d+)\.(\w+)", name):
        return f"model.{starts.get(match[1], 0) + int(match[2])}.{_TIMM.get(match[3], match[3])}"
    if match := re.fullmatch(r"layers\.(\d+)\.(\w+)", name):
        return f"model.{int(match[1]) + 1}.{_KUANGLIU.get(match[2], match[2])}"
    if match := re.fullmatch(r"layer\.(\d+)\.(convolution|normalization)", name):
        half, at = divmod(int(match[1]), 2)
        return f"model.{half + 1}.{_PARTS[2 * at + (match[2] == 'normalization')]}"
    if match := re.fullmatch(r"(stem|conv\d)\.(\d+)\.((?:depth|point)wise\.\d)", name):
        offset = int(match[2]) - (match[1] == "stem")
        return f"model.{starts.get(match[1], 0) + offset}.{_WEIAICUNZAI[match[3]]}"
    return _STEMS.get(name, name)


def _read(shapes: Shapes) -> Network | None:
    if not network.is_conv(shapes, "model.0.0.weight"):
        return None
    widths = [shapes["model.0.0.weight"][0]]
    while network.is_conv(shapes, f"model.{len(widths)}.3.weight"):
        widths.append(shapes[f"model.{len(widths)}.3.weight"][0])
    if len(widths) < 2:
        return None
    return _network(tuple(widths), network.read_head(shapes, "fc"))


def _named(name: str, head: Head) -> Network | None:
    match = re.fullmatch(r"mobilenet_v1(?:_w(\d+(?:\.\d+)?))?", name)
    if match is None or float(match[1] or 1) <= 0:
        return None
    return _network(tuple(int(width * float(match[1] or 1)) for width in _PAPER), head)


def _network(widths: tuple[int, ...], head: Head) -> Network:
    expected: dict[str, Shape] = dict(conv_bn("model.0.0", "model.0.1", widths[0], 3, 3))
    for block, out in enumerate(widths[1:], start=1):
        inputs, name = widths[block - 1], f"model.{block}"
        expected.update(conv_bn(f"{name}.0", f"{name}.1", inputs, 1, 3))
        expected.update(conv_bn(f"{name}.3", f"{name}.4", out, inputs, 1))
    expected.update(network.head_shapes(head, "fc", widths[-1]))
    multiplier = widths[-1] / _PAPER[-1]
    usual = len(widths) == len(_PAPER)
    return Network(
        name="mobilenet_v1" if widths == _PAPER else f"mobilenet_v1_w{multiplier:g}",
        features=widths[-1],
        head=head,
        expected=expected,
        build=partial(_build, widths, head),
        assumptions=(
            network.choice("stem_stride", ("2", "1"), "the stem has stride {}"),
            network.strides(_PAPER_STRIDES if usual else _strides(widths)),
            network.activation("relu"),
            network.BN_EPS,
            *network.head_assumptions(head),
        ),
        evidence=(
            f"{len(widths) - 1} depthwise separable blocks, {widths[-1]} channels at the end",
        ),
    )


def _strides(widths: tuple[int, ...]) -> str:
    """The first block never strides; a later one does where the width doubles."""
    later = ("2" if out >= 2 * inputs else "1" for inputs, out in pairwise(widths[1:]))
    return ",".join(["1", *later])


def _build(widths: tuple[int, ...], head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.mobilenet_v1 import MobileNetV1

    return MobileNetV1(widths, head, settings)


def _habits(shapes: Shapes) -> Habits:
    for pattern, habits in _HABITS.items():
        if any(re.search(pattern, name) for name in shapes):
            return habits
    return network.NO_HABITS


_SMALL = {"stem_stride": "1"}
_HABITS = {
    r"(^|\.)layer\.\d+\.convolution\.": Habits(
        "Hugging Face",
        {"padding": "tf", "activation": "relu6", "bn_eps": "1e-3"},
        preprocess="half",
    ),
    r"(^|\.)blocks\.\d+\.\d+\.conv_dw\.": Habits(
        "timm", {"activation": "relu6"}, preprocess="half"
    ),
    r"(^|\.)layers\.\d+\.conv2\.": Habits("kuangliu", _SMALL, "cifar", 32),
    r"\.depthwise\.0\.": Habits("weiaicunzai", _SMALL, "cifar", 32),
}

FAMILY = Family(
    name="mobilenet_v1",
    stems=(
        "model.0.0.weight",
        "conv_stem.weight",
        "mobilenet_v1.conv_stem.convolution.weight",
        "conv1.weight",
        "stem.0.conv.weight",
    ),
    translate=_translate,
    read=_read,
    named=_named,
    references=("mobilenet_v1",),
    by_position=by_position,
    habits=_habits,
)
