"""VGG of any widths, with batch norm and without.

    (3x3 convolution [→ batch norm] → ReLU) x n → max pool, stage by stage → linear layers

Simonyan and Zisserman, arXiv:1409.1556. Widths are read; so are the pools, from the gaps that
ReLU and pool leave in torchvision's numbers (`features.0`, `features.3`), or else from the number
of convolutions, 8, 10, 13 or 16. The first linear layer says how many pixels are left for it: 7x7
of an input of 224, or a single one of 32.

Dialects: torchvision, kuangliu, weiaicunzai; Cadene (`_features`, `linear0`, `last_linear`); timm,
whose linear layers are convolutions of the same numbers (`pre_logits.fc1`, `head.fc`); mmpretrain
by its order.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Head, Linear, Network, Settings
from resdeploy.export.architectures.letters import word_of
from resdeploy.export.architectures.plain.layout import VggLayout
from resdeploy.export.architectures.plain.names import translate_plain
from resdeploy.export.architectures.units import Shape, Shapes, Unit

if TYPE_CHECKING:
    from torch import nn

# Table 1, columns A, B, D, E: convolutions per stage.
_PAPER = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
_HEAD_PLACES = ("0", "3", "6")  # ReLU and dropout stand between


def _by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """Convolutions in a row, with norms or without, then one linear layer or three."""
    found = re.fullmatch(r"((?:CN)+|C+)([KPL]?[PL]{0,2})", word_of(units))
    if found is None:
        return
    normed = "N" in found[1]
    count = found[1].count("C")
    stages = next((c for c in _PAPER.values() if sum(c) == count), None)
    if stages is None:
        return
    layout = VggLayout(tuple((0,) * convs for convs in stages), normed, 1, ())
    names: dict[str, str] = {}
    step = 2 if normed else 1
    for number, (place, _, _) in enumerate(layout.places()):
        names[f"features.{place}"] = units[number * step].name
        if normed:
            names[f"features.{place + 1}"] = units[number * step + 1].name
    head = [unit.name for unit in units[len(found[1]) :]]
    places = [f"classifier.{place}" for place in _HEAD_PLACES] if len(head) > 1 else ["classifier"]
    yield names | dict(zip(places, head, strict=False))


_OTHER_HEADS = {
    **{"linear0": "classifier.0", "linear1": "classifier.3", "last_linear": "classifier.6"},
    **{"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"},
    "head.fc": "classifier.6",
}


def _read(shapes: Shapes) -> Network | None:
    places = sorted(
        int(match[1])
        for name, shape in shapes.items()
        if (match := re.fullmatch(r"features\.(\d+)\.weight", name)) and shape[2:] == (3, 3)
    )
    weights = [shapes[f"features.{place}.weight"] for place in places]
    if len(places) < 2 or places[0] != 0 or weights[0][1] != 3:
        return None
    normed = "features.1.running_var" in shapes
    stages: list[list[int]] = [[weights[0][0]]]
    for (place, following), shape in zip(pairwise(places), weights[1:], strict=True):
        if following - place > (3 if normed else 2):
            stages.append([])
        stages[-1].append(shape[0])
    head = _head(shapes)
    side = isqrt(head[0].inputs // weights[-1][0]) if head else 1
    shaped = tuple(shapes[f"{_name(layer)}.weight"] for layer in head)
    return _network(VggLayout(tuple(map(tuple, stages)), normed, side, shaped), head)


def _head(shapes: Shapes) -> Head:
    """The linear layers, of which the first may be a convolution as large as what it sees."""
    head = network.read_head(shapes, "classifier")
    first = shapes.get("classifier.0.weight", ())
    if len(first) == 4 and first[2:] != (1, 1):
        inputs = first[1] * first[2] * first[3]
        head = (Linear("0", inputs, first[0], "classifier.0.bias" in shapes), *head)
    return head


def _name(layer: Linear) -> str:
    return f"classifier.{layer.name}".rstrip(".")


def _expected(layout: VggLayout, head: Head) -> dict[str, Shape]:
    expected: dict[str, Shape] = {}
    for place, inputs, out in layout.places():
        expected[f"features.{place}.weight"] = (out, inputs, 3, 3)
        if not layout.normed:
            expected[f"features.{place}.bias"] = (out,)
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"features.{place + 1}.{part}"] = (out,)
    features = layout.stages[-1][-1] * layout.side**2
    for layer, shape in zip(head, layout.head_shapes, strict=True):
        # a convolution's kernel counts as inputs, so other numbers show as a difference
        fits = layer.inputs == features
        expected[f"{_name(layer)}.weight"] = shape if fits else (layer.outputs, features)
        if layer.bias:
            expected[f"{_name(layer)}.bias"] = (layer.outputs,)
        features = layer.outputs
    return expected


def _network(layout: VggLayout, head: Head) -> Network:
    counts = tuple(len(widths) for widths in layout.stages)
    size_px = layout.side * 2 ** len(layout.stages) if head else 224
    seen = f"the head sees {layout.side}x{layout.side} pixels, so the input has {size_px}"
    return Network(
        name=_network_name(layout, small=size_px == 32),
        features=layout.stages[-1][-1] * layout.side**2,
        head=head,
        expected=_expected(layout, head),
        build=partial(_build, layout, head),
        assumptions=(
            network.activation("relu"),
            *((network.BN_EPS,) if layout.normed else ()),
            *network.head_assumptions(head),
        ),
        evidence=(
            f"3x3 convolutions, {'-'.join(map(str, counts))} before each pool, "
            f"{'with' if layout.normed else 'without'} batch norm{f'; {seen}' if head else ''}",
        ),
        input_size_px=size_px,
        preprocess="cifar" if size_px == 32 else "imagenet",
    )


def _network_name(layout: VggLayout, *, small: bool) -> str:
    counts = tuple(len(widths) for widths in layout.stages)
    usual = all(
        set(widths) == {width} for widths, width in zip(layout.stages, _WIDTHS, strict=False)
    )
    suffix = "_bn" if layout.normed else ""
    depth = next((depth for depth, stages in _PAPER.items() if stages == counts), None)
    if depth is None or not usual:
        widths = "-".join(str(width) for stage in layout.stages for width in stage)
        return f"vgg{suffix}({widths})"
    return f"vgg{depth}{suffix}{'_32px' if small else ''}"


def _named(name: str, head: Head) -> Network | None:
    match = re.fullmatch(r"vgg(11|13|16|19)(_bn)?", name)
    if match is None:
        return None
    counts = _PAPER[int(match[1])]
    stages = tuple((width,) * count for width, count in zip(_WIDTHS, counts, strict=True))
    shaped = tuple((layer.outputs, layer.inputs) for layer in head)
    return _network(VggLayout(stages, match[2] is not None, 7, shaped), head)


def _build(layout: VggLayout, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.plain import build_vgg

    return build_vgg(layout, head, settings)


FAMILY = Family(
    name="vgg",
    stems=("features.0.weight", "_features.0.weight"),
    translate=partial(translate_plain, heads=_OTHER_HEADS),
    read=_read,
    named=_named,
    references=("vgg16", "vgg16_bn"),
    by_position=_by_position,
)
