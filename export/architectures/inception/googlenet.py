"""GoogLeNet (Inception v1), with batch norm and without, of any widths.

    stem → inception3a, 3b → pool → 4a … 4e → pool → 5a, 5b → global average → fc

    inception   1x1 | 1x1 → 3x3 | 1x1 → 5x5 | pool → 1x1, concatenated

Szegedy et al., arXiv:1409.4842. What stands for the 5x5 is read: a true one (the widespread
tutorial without batch norm, whose convolutions have biases instead), one 3x3 (torchvision), or two
(networks for small images). So is the stem: 7x7, 1x1 and 3x3 with pools, or 3x3 only, for images of
32 pixels. Auxiliary heads serve training only and are left out.

Dialects: torchvision; WZMIAOMIAO's without batch norm; kuangliu and weiaicunzai (`a3.b1.0`). In
weiaicunzai's one norm of each module was given its width as epsilon, and was trained so.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Habits, Head, Network, Settings, choice
from resdeploy.export.architectures.inception.googlenet_layout import (
    MODULES,
    Conv,
    GoogLeNetLayout,
    module_width,
)
from resdeploy.export.architectures.units import Shape, Shapes, Unit

if TYPE_CHECKING:
    from torch import nn

_STEMS = (("conv1", "conv2", "conv3"), ("conv1",))
_BRANCHES = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
_LONG_BRANCHES = (*_BRANCHES[:5], "branch3.2", "branch4.1")
_AUXILIARY = (r"aux[12]\.",)


def by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """The convolutions in their order, norms in theirs; auxiliary heads would be in between."""
    convs = [unit for unit in units if unit.kind == "conv"]
    norms = [unit for unit in units if unit.kind == "norm"]
    heads = [unit for unit in units if unit.kind == "linear"]
    if len(norms) not in (0, len(convs)) or len(heads) > 1 or not convs:
        return
    for stem in _STEMS:
        for branches in (_BRANCHES, _LONG_BRANCHES):
            names = [*stem, *(f"inception{m}.{branch}" for m in MODULES for branch in branches)]
            if len(names) == len(convs):
                found = {f"{n}.conv": unit.name for n, unit in zip(names, convs, strict=True)}
                found |= {f"{n}.bn": unit.name for n, unit in zip(names, norms, strict=False)}
                yield found | ({"fc": heads[0].name} if heads else {})


def _translate(shapes: Shapes) -> dict[str, str]:
    names = {}
    for name in shapes:
        module, _, part = name.rpartition(".")
        names[f"{_module(module)}.{part}"] = name
    for ours, name in network.translate_head(shapes, "fc").items():
        names.pop(name, None)
        names[ours] = name
    return names


def _module(name: str) -> str:
    if match := re.fullmatch(r"pre_?layers?\.(\d+)", name):
        return f"conv{int(match[1]) // 3 + 1}.{('conv', 'bn')[int(match[1]) % 3]}"
    if match := re.fullmatch(r"([a-e])([345])\.b([1-4])\.(\d+)", name):
        at = int(match[4]) - (match[3] == "4")  # its pool comes first
        step = {"1": "", "4": ".1"}.get(match[3], f".{at // 3}")
        part = ("conv", "bn")[at % 3]
        return f"inception{match[2]}{match[1]}.branch{match[3]}{step}.{part}"
    return name


def _read(shapes: Shapes) -> Network | None:
    stem = _convs(shapes, "", ("conv1", "conv2", "conv3"))
    modules = tuple(_convs(shapes, f"inception{m}.", _LONG_BRANCHES) for m in MODULES)
    if not stem or any(len(module) not in (6, 7) for module in modules):
        return None
    layout = GoogLeNetLayout(stem, modules, "conv1.bn.weight" in shapes)
    return _network(layout, network.read_head(shapes, "fc"))


def _convs(shapes: Shapes, scope: str, names: Iterable[str]) -> tuple[Conv, ...]:
    found = []
    for name in names:
        shape = shapes.get(f"{scope}{name}.conv.weight", ())
        if len(shape) == 4 and all(shape):
            found.append(Conv(f"{scope}{name}", shape[0], shape[1], shape[2]))
    return tuple(found)


def _connected(layout: GoogLeNetLayout) -> GoogLeNetLayout:
    """The same convolutions, each with as many inputs as what it reads has channels."""
    width, stem = 3, []
    for conv in layout.stem:
        stem.append(replace(conv, inputs=width))
        width = conv.out
    modules = []
    for module in layout.modules:
        before, convs = width, []
        for conv in module:
            follows = re.search(r"branch[23]\.[12]$", conv.name)
            convs.append(replace(conv, inputs=before if follows else width))
            before = conv.out
        modules.append(tuple(convs))
        width = module_width(module)
    return GoogLeNetLayout(tuple(stem), tuple(modules), layout.normed)


def _expected(layout: GoogLeNetLayout, head: Head) -> dict[str, Shape]:
    expected: dict[str, Shape] = {}
    for conv in (*layout.stem, *(conv for module in layout.modules for conv in module)):
        expected.update(_conv(conv, layout.normed))
    expected.update(network.head_shapes(head, "fc", layout.features))
    return expected


def _conv(conv: Conv, normed: bool) -> Iterable[tuple[str, Shape]]:
    yield f"{conv.name}.conv.weight", (conv.out, conv.inputs, conv.kernel, conv.kernel)
    if not normed:
        yield f"{conv.name}.conv.bias", (conv.out,)
        return
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{conv.name}.bn.{part}", (conv.out,)


def _network(layout: GoogLeNetLayout, head: Head) -> Network:
    layout = _connected(layout)
    normed, small = layout.normed, layout.small
    assumptions = [*network.head_assumptions(head), network.activation("relu")]
    if not small:
        pools = ("2", "3") if normed else ("3", "2")
        assumptions.append(choice("pool4", pools, "the pool before inception5a is {} wide"))
    if normed:
        assumptions.append(network.BN_EPS.with_default("1e-3"))
    if normed and not small:
        assumptions.append(TRANSFORM_INPUT)
    if normed and len(layout.modules[0]) == 7:
        assumptions.append(_MIDDLE_EPS)
    third = layout.modules[0][4]
    kernel = f"{third.kernel}x{third.kernel}"
    return Network(
        name="googlenet" if normed else "googlenet without batch norm",
        features=layout.features,
        head=head,
        expected=_expected(layout, head),
        build=partial(_build, layout, head),
        assumptions=tuple(assumptions),
        evidence=(
            f"nine inception modules, {'with' if normed else 'without'} batch norm; the third "
            f"branch has {'two' if len(layout.modules[0]) == 7 else 'one'} {kernel}",
        ),
        input_size_px=32 if small else 224,
        preprocess="cifar" if small else "imagenet" if normed else "half",
        unused=_AUXILIARY,
    )


TRANSFORM_INPUT = choice(
    "transform_input",
    ("yes", "no"),
    "the network turns ImageNet's mean and std into 0.5 itself, as torchvision's pretrained do: {}",
)

_MIDDLE_EPS = choice(
    "middle_eps",
    ("bn_eps", "width"),
    "the norm between the two 3x3 of the third branch has {} as its eps",
)

# The paper's table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
_PAPER = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _named(name: str, head: Head) -> Network | None:
    if name != "googlenet":
        return None
    stem = (Conv("conv1", 64, 3, 7), Conv("conv2", 64, 64, 1), Conv("conv3", 192, 64, 3))
    modules = []
    for module, widths in zip(MODULES, _PAPER, strict=True):
        kernels = (1, 1, 3, 1, 3, 1)
        named = zip(_BRANCHES, widths, kernels, strict=True)
        modules.append(tuple(Conv(f"inception{module}.{n}", out, 0, k) for n, out, k in named))
    return _network(GoogLeNetLayout(stem, tuple(modules), True), head)


def _build(layout: GoogLeNetLayout, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.googlenet import GoogLeNet

    return GoogLeNet(layout, head, settings)


def _habits(shapes: Shapes) -> Habits:
    if any(re.search(r"(^|\.)prelayer\.", name) for name in shapes):
        return Habits("weiaicunzai", {"bn_eps": "1e-5", "middle_eps": "width"})
    if any(re.search(r"(^|\.)[a-e][345]\.b1\.0\.", name) for name in shapes):
        return Habits("kuangliu", {"bn_eps": "1e-5"})
    return network.NO_HABITS


FAMILY = Family(
    name="googlenet",
    stems=("conv1.conv.weight", "pre_layers.0.weight", "prelayer.0.weight"),
    translate=_translate,
    read=_read,
    named=_named,
    references=("googlenet",),
    by_position=by_position,
    habits=_habits,
)
