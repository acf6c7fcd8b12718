"""DenseNets for small images, of any depth, growth and width.

    conv0 3x3 [→ norm → ReLU → max pool] → dense layers (→ transition → dense layers) x n
          → norm → ReLU → global average → classifier

    dense layer   norm → ReLU → [1x1 → norm → ReLU →] 3x3, joined to what the layer was given
    transition    norm [→ ReLU] → 1x1 → average pool 2x2

Huang et al., arXiv:1608.06993. Names are torchvision's, whose own networks have a 7x7 stem and are
left to its constructor. No weight tells on which side a layer joins its new channels (torchvision
and most others put them after the old ones, kuangliu before), nor whether a transition has a ReLU
(weiaicunzai's have none).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.densenet_layout import DenseLayout
from resdeploy.export.architectures.family import Family, Habits, Head, Network, Settings, choice
from resdeploy.export.architectures.units import Shape, Shapes, Unit, in_order

if TYPE_CHECKING:
    from torch import nn

_FEWEST_CONVOLUTIONS = 3
_JOINS = choice(
    "joins", ("after", "before"), "a dense layer puts its new channels {} those it was given"
)
_TRANSITION = choice(
    "transition_relu", ("yes", "no"), "a ReLU stands before a transition's convolution: {}"
)


def _read(shapes: Shapes) -> Network | None:
    stem, first = (
        shapes.get(f"features.{name}.weight", ())
        for name in ("conv0", "denseblock1.denselayer1.conv1")
    )
    if stem[2:] != (3, 3) or len(first) != 4:
        return None
    added = shapes.get("features.denseblock1.denselayer1.conv2.weight", first)
    counts: list[int] = []
    while count := _count(shapes, f"features.denseblock{len(counts) + 1}.denselayer"):
        counts.append(count)
    narrowed = (f"features.transition{block}.conv.weight" for block in range(1, len(counts)))
    layout = DenseLayout(
        stem=stem[0],
        normed="features.norm0.running_var" in shapes,
        counts=tuple(counts),
        growth=added[0],
        inner=0 if added is first else first[0],
        transitions=tuple(shapes.get(name, (1,))[0] for name in narrowed),
    )
    return _network(layout, network.read_head(shapes, "classifier"))


def _count(shapes: Shapes, layer: str) -> int:
    count = 0
    while f"{layer}{count + 1}.conv1.weight" in shapes:
        count += 1
    return count


def _by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """The convolutions tell the layout; whether norms and widths agree is seen by comparing."""
    convs = [unit.shape for unit in units if unit.kind == "conv"]
    heads = [unit.shape for unit in units if unit.kind == "linear"]
    if len(convs) < _FEWEST_CONVOLUTIONS or convs[0][1:] != (3, 3, 3) or len(heads) != 1:
        return
    layout = _layout(convs)
    norms = sum(unit.kind == "norm" for unit in units)
    for read in (layout, replace(layout, normed=True)):
        expected = dict(_tensors(read))
        if sum(name.endswith("running_var") for name in expected) == norms:
            yield from in_order(expected | {"classifier.weight": heads[0]}, units)


def _layout(convs: Sequence[Shape]) -> DenseLayout:
    """Without a norm behind the stem. A 1x1 convolution that no 3x3 one follows is a transition.

    Where dense layers have no 1x1 convolution of their own, each one is.
    """
    bottleneck = convs[1][2:] == (1, 1)
    counts, transitions, growth = [0], [], 0
    for conv, following in pairwise([*convs[1:], ()]):
        if conv[2:] == (3, 3):
            counts[-1] += 1
            growth = growth or conv[0]
        elif not bottleneck or following[2:] != (3, 3):
            transitions.append(conv[0])
            counts.append(0)
    inner = convs[1][0] if bottleneck else 0
    return DenseLayout(convs[0][0], False, tuple(counts), growth, inner, tuple(transitions))


def _tensors(layout: DenseLayout) -> Iterable[tuple[str, Shape]]:
    """Names and shapes in the order of the layers, those of the head left out."""
    yield "features.conv0.weight", (layout.stem, 3, 3, 3)
    if layout.normed:
        yield from _norm("features.norm0", layout.stem)
    for block, (width, count) in enumerate(zip(layout.entering, layout.counts, strict=True), 1):
        for number in range(1, count + 1):
            name = f"features.denseblock{block}.denselayer{number}"
            yield from _layer(name, width, layout.inner, layout.growth)
            width += layout.growth
        if block <= len(layout.transitions):
            name = f"features.transition{block}"
            yield from _norm(f"{name}.norm", width)
            yield f"{name}.conv.weight", (layout.transitions[block - 1], width, 1, 1)
    yield from _norm("features.norm5", layout.features)


def _layer(name: str, width: int, inner: int, growth: int) -> Iterable[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm1", width)
    if not inner:
        yield f"{name}.conv1.weight", (growth, width, 3, 3)
        return
    yield f"{name}.conv1.weight", (inner, width, 1, 1)
    yield from _norm(f"{name}.norm2", inner)
    yield f"{name}.conv2.weight", (growth, inner, 3, 3)


def _norm(name: str, channels: int) -> Iterable[tuple[str, Shape]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)


def _network(layout: DenseLayout, head: Head) -> Network:
    counts = "-".join(map(str, layout.counts))
    kind = f"1x1 to {layout.inner} and 3x3" if layout.inner else "3x3"
    pools = ("yes", "no") if layout.normed else ("no", "yes")
    return Network(
        name=f"densenet{'_bc' if layout.inner else ''}{layout.depth}_k{layout.growth}",
        features=layout.features,
        head=head,
        expected={
            **dict(_tensors(layout)),
            **dict(network.head_shapes(head, "classifier", layout.features)),
        },
        build=partial(_build, layout, head),
        assumptions=(
            _JOINS,
            _TRANSITION,
            choice("stem_stride", ("1", "2"), "the first convolution has stride {}"),
            choice("pool", pools, "max pool after the stem: {}"),
            network.activation("relu"),
            network.BN_EPS,
            *network.head_assumptions(head),
        ),
        evidence=(f"{counts} dense layers ({kind}), each adds {layout.growth} channels",),
        input_size_px=32,
        preprocess="cifar",
    )


def _build(layout: DenseLayout, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.densenet import DenseNet

    return DenseNet(layout, head, settings)


def _named(name: str, head: Head) -> Network | None:
    """Those of the paper's Table 2, e.g. densenet40_k12 and densenet_bc100_k12."""
    match = re.fullmatch(r"densenet(_bc)?(\d+)_k(\d+)", name)
    if match is None:
        return None
    growth = int(match[3])
    inner = 4 * growth if match[1] else 0
    count, rest = divmod(int(match[2]) - 4, 6 if inner else 3)
    if rest or not count:
        return None
    width = 2 * growth if inner else 16
    stem, transitions = width, []
    for _ in range(2):
        width += count * growth
        width = width // 2 if inner else width
        transitions.append(width)
    return _network(DenseLayout(stem, False, (count,) * 3, growth, inner, tuple(transitions)), head)


def _habits(shapes: Shapes) -> Habits:
    if "trans1.conv.weight" in shapes and "dense1.0.bn1.weight" in shapes:
        return Habits("kuangliu", {"joins": "before"})
    if "features.transition_layer_0.down_sample.1.weight" in shapes:
        return Habits("weiaicunzai", {"transition_relu": "no"})
    return network.NO_HABITS


FAMILY = Family(
    name="densenet",
    stems=("features.conv0.weight", "conv1.weight"),
    translate=lambda shapes: {name: name for name in shapes},
    read=_read,
    named=_named,
    references=("densenet_bc100_k12",),
    by_position=_by_position,
    habits=_habits,
)
