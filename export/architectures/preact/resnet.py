"""Pre-activation ResNets: batch norm and activation stand before each convolution.

    [input norm] → conv1 [→ norm → ReLU] [→ max pool] → layer1 … layerN [→ norm → ReLU] → mean → fc

    block       norm → ReLU → conv, two or three times  (+ shortcut)
    shortcut    a 1x1 convolution without norm where the width changes, else nothing

He et al., arXiv:1603.05027; wide ones: Zagoruyko and Komodakis, arXiv:1605.07146. Which norms there
are, the blocks per stage, their widths and groups are read from the file. What it cannot tell is
whether the shortcut convolution reads the block's input or what its first norm and ReLU made of it;
authors differ, and names tell whose network it is.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Habits, Head, Network, Settings, choice
from resdeploy.export.architectures.preact.dialects import BY_ORIGIN, translate_preact
from resdeploy.export.architectures.preact.layers import by_position
from resdeploy.export.architectures.preact.layout import PreactBlock, PreactLayout
from resdeploy.export.architectures.units import Shape, Shapes

if TYPE_CHECKING:
    from torch import nn

_ACTIVATED, _RAW = "the-activated-input", "the-input"
_SHORTCUT = choice(
    "shortcut_reads",
    (_ACTIVATED, _RAW),
    "a convolution on a shortcut reads {} of its block",
)
# TRADES' wide networks carry a second first stage that they never run.
_UNUSED = (r"sub_block1\.",)
_BARE_SHORTCUT = choice(
    "first_shortcut",
    (_RAW, _ACTIVATED),
    "in the first block of a stage, a shortcut without a convolution hands on {}",
)


def _read(shapes: Shapes) -> Network | None:
    if not network.is_conv(shapes, "conv1.weight"):
        return None
    stages: list[tuple[PreactBlock, ...]] = []
    while blocks := _read_stage(shapes, f"layer{len(stages) + 1}"):
        stages.append(blocks)
    if not stages:
        return None
    stem, _, kernel, _ = shapes["conv1.weight"]
    layout = PreactLayout(
        stem=stem,
        kernel=kernel,
        input_norm="input_norm.running_var" in shapes,
        stem_norm="stem_norm.running_var" in shapes,
        last_norm="bn.running_var" in shapes,
        stages=tuple(stages),
    )
    return _network(layout, network.read_head(shapes, "fc"))


def _read_stage(shapes: Shapes, stage: str) -> tuple[PreactBlock, ...]:
    blocks: list[PreactBlock] = []
    while True:
        name = f"{stage}.{len(blocks)}"
        wanted = [f"{name}.conv1.weight", f"{name}.conv2.weight"]
        bottleneck = f"{name}.conv3.weight" in shapes
        wanted += [f"{name}.conv3.weight"] if bottleneck else []
        if f"{name}.bn1.running_var" not in shapes:
            return tuple(blocks)
        if not all(network.is_conv(shapes, weight) for weight in wanted):
            return tuple(blocks)
        first, second, last = (shapes[weight] for weight in (wanted[0], wanted[1], wanted[-1]))
        blocks.append(
            PreactBlock(
                bottleneck=bottleneck,
                inputs=first[1],
                inside=first[0],
                out=last[0],
                groups=max(1, first[0] // second[1]) if bottleneck else 1,
                projected=f"{name}.shortcut.weight" in shapes,
                normed=f"{name}.last_bn.running_var" in shapes,
            )
        )


def _expected(layout: PreactLayout, head: Head) -> dict[str, Shape]:
    expected: dict[str, Shape] = {}
    expected.update(_norm("input_norm", 3) if layout.input_norm else ())
    expected["conv1.weight"] = (layout.stem, 3, layout.kernel, layout.kernel)
    expected.update(_norm("stem_norm", layout.stem) if layout.stem_norm else ())
    width = layout.stem
    for stage, blocks in enumerate(layout.stages, start=1):
        for index, block in enumerate(blocks):
            expected.update(_block_shapes(f"layer{stage}.{index}", block, width))
            width = block.out
    expected.update(_norm("bn", width) if layout.last_norm else ())
    expected.update(network.head_shapes(head, "fc", width))
    return expected


def _block_shapes(name: str, block: PreactBlock, inputs: int) -> Iterable[tuple[str, Shape]]:
    inside, out = block.inside, block.out
    yield from _norm(f"{name}.bn1", inputs)
    yield f"{name}.conv1.weight", (inside, inputs, *((1, 1) if block.bottleneck else (3, 3)))
    yield from _norm(f"{name}.bn2", inside)
    if block.bottleneck:
        yield f"{name}.conv2.weight", (inside, inside // block.groups, 3, 3)
        yield from _norm(f"{name}.bn3", inside)
        yield f"{name}.conv3.weight", (out, inside, 1, 1)
    else:
        yield f"{name}.conv2.weight", (out, inside, 3, 3)
    if block.normed:
        yield from _norm(f"{name}.last_bn", out)
    if block.projected:
        yield f"{name}.shortcut.weight", (out, inputs, 1, 1)


def _norm(name: str, channels: int) -> Iterable[tuple[str, Shape]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)


def _network(layout: PreactLayout, head: Head) -> Network:
    blocks = [block for stage in layout.stages for block in stage]
    large = layout.kernel == 7
    strides = ",".join("1" if stage == 0 else "2" for stage in range(len(layout.stages)))
    assumptions = [
        choice("pool", ("yes", "no") if large else ("no", "yes"), "max pool after the stem: {}"),
        choice("stem_stride", ("2", "1") if large else ("1", "2"), "the stem has stride {}"),
        network.strides(strides),
        network.activation("relu"),
        network.BN_EPS,
        *network.head_assumptions(head),
    ]
    if any(block.projected for block in blocks):
        assumptions.insert(0, _SHORTCUT)
    if not all(stage[0].projected for stage in layout.stages):
        assumptions.append(_BARE_SHORTCUT)
    if blocks[0].bottleneck:
        sentence = "a bottleneck that halves the resolution does so in its {} convolution"
        assumptions.insert(0, choice("stride", ("3x3", "1x1"), sentence))
    return Network(
        name=_name(layout),
        features=blocks[-1].out,
        head=head,
        expected=_expected(layout, head),
        build=partial(_build, layout, head),
        assumptions=tuple(assumptions),
        evidence=_evidence(layout),
        input_size_px=224 if large else 32,
        preprocess="imagenet" if large else "cifar",
        unused=_UNUSED,
    )


def _name(layout: PreactLayout) -> str:
    counts = [len(stage) for stage in layout.stages]
    blocks = [block for stage in layout.stages for block in stage]
    convs = 3 if blocks[0].bottleneck else 2
    depth = convs * sum(counts) + 2
    widening = blocks[0].out / layout.stem
    if len(counts) == 3 and widening > 1 and convs == 2:
        return f"wide_resnet{depth + 2}_{widening:g}"
    return f"preact_resnet{depth}"


def _evidence(layout: PreactLayout) -> tuple[str, ...]:
    counts = "-".join(str(len(stage)) for stage in layout.stages)
    first = layout.stages[0][0]
    kind = "three convolutions (1x1, 3x3, 1x1)" if first.bottleneck else "two 3x3 convolutions"
    seen = [
        f"each block begins with a batch norm as wide as what enters it: pre-activation, {counts} "
        f"blocks per stage of {kind}"
    ]
    if layout.input_norm:
        seen.append("a batch norm of 3 channels stands on the input")
    if not layout.last_norm:
        seen.append("no batch norm behind the last block: the mean is taken of its sum")
    return tuple(seen)


def _build(layout: PreactLayout, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.preact_resnet import PreactResNet

    return PreactResNet(layout, head, settings)


def _named(name: str, head: Head) -> Network | None:
    """For images of 32 pixels: preact_resnet18 and 34, and wide ones such as wide_resnet28_10."""
    if match := re.fullmatch(r"wide_resnet(\d+)_(\d+)", name):
        n, rest = divmod(int(match[1]) - 4, 6)
        widths = [16 * int(match[2]) * factor for factor in (1, 2, 4)]
        counts, last_norm, stem = [n] * 3, True, 16
    elif name in ("preact_resnet18", "preact_resnet34"):
        counts = {"18": [2, 2, 2, 2], "34": [3, 4, 6, 3]}[name[-2:]]
        widths, rest, last_norm, stem = [64, 128, 256, 512], 0, False, 64
    else:
        return None
    if rest or not all(counts):
        return None
    stages, inputs = [], stem
    for width, count in zip(widths, counts, strict=True):
        first = PreactBlock(False, inputs, width, width, 1, inputs != width, False)
        rest_of_stage = replace(first, inputs=width, projected=False)
        stages.append((first, *[rest_of_stage] * (count - 1)))
        inputs = width
    return _network(PreactLayout(stem, 3, False, False, last_norm, tuple(stages)), head)


def _habits(shapes: Shapes) -> Habits:
    for pattern, origin, activated in BY_ORIGIN:
        if any(re.search(pattern, name) for name in shapes):
            settings = {"shortcut_reads": _ACTIVATED if activated else _RAW}
            if origin == "hysts":
                settings["first_shortcut"] = _ACTIVATED
            elif origin in ("pytorchcv", "weiaicunzai"):
                # pytorchcv's preresnet50b strides in the 3x3, under the names of its preresnet50
                settings["stride"] = "1x1"
            elif origin == "DeepMind":  # and all who train its network for RobustBench
                settings |= {"activation": "silu", "padding": "tf"}
            return Habits(origin, settings)
    return network.NO_HABITS


FAMILY = Family(
    name="preact_resnet",
    stems=("conv1.weight", "conv.weight", "stem.conv.weight", "pre.0.weight", "init_conv.weight"),
    translate=translate_preact,
    read=_read,
    named=_named,
    references=("preact_resnet18", "wide_resnet28_10"),
    by_position=by_position,
    habits=_habits,
)
