"""SqueezeNet, DenseNet, ShuffleNetV2, MobileNetV3, EfficientNet, RegNet, MNASNet, ConvNeXt, ….

Their layouts are the constructors' business: a checkpoint is one of these when its names and
shapes, or its layers in their order, equal what torchvision's or timm's constructor makes for that
many classes, or one of ours for networks that neither has (`modules.small_images`). `signatures`
knows that without asking; the constructor is asked when the network is built, and must agree.
`--arch` takes every classifier of torchvision, and `timm:NAME` where timm is installed, whether
there is a signature of it or not.

An encoder, such as one of segmentation_models_pytorch, lacks the classifier and sometimes the
layers right before it. Only those may be missing: at most three, behind all others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.constructed.dialects import habits_of, translate
from resdeploy.export.architectures.constructed.signatures import (
    Signature,
    signature,
    with_fingerprint,
    with_opening,
)
from resdeploy.export.architectures.family import (
    Assumption,
    Family,
    Head,
    Linear,
    Network,
    Settings,
    choice,
)
from resdeploy.export.architectures.units import Shape, Shapes, Unit, in_order, squeezed, units_of

if TYPE_CHECKING:
    from torch import nn

# torchvision's whose first convolution strides, by how they begin -> whether a max pool follows
_STEMS = {
    "densenet": True,
    "efficientnet": False,
    "mnasnet": False,
    "mobilenet_v3": False,
    "regnet": False,
    "shufflenet": True,
    "squeezenet": False,
}
_SMALL_PX = 32  # of our own networks, whose stem keeps the size
_LAST_LAYERS = 3  # MobileNetV3's last convolution and the two linear layers after it


def _classes(units: tuple[Unit, ...]) -> int:
    """Rows of the last linear layer, or of SqueezeNet's convolution in its place."""
    linear = [unit.shape for unit in units if unit.kind == "linear"]
    convs = [unit for unit in units if unit.kind == "conv"]
    named = [unit.shape for unit in convs if unit.name.endswith("classifier.1")]
    return (linear or named or [unit.shape for unit in convs])[-1][0]


def _network(found: Signature, classes: int) -> Network:
    expected = found.for_classes(classes)
    return Network(
        name=found.name,
        features=found.features,
        head=(Linear("", found.features, classes, True),),
        expected=expected,
        build=partial(_build, found.name, expected, ()),
        assumptions=tuple(_assumptions(found)),
        evidence=(f"names and shapes are those that the constructor of {found.name} makes",),
        input_size_px=found.input_size_px,
        preprocess=found.preprocess,
    )


def _assumptions(found: Signature) -> Iterable[Assumption]:
    """Networks for CIFAR have the same names and shapes, and often stride less."""
    if found.eps is not None:
        yield network.BN_EPS.with_default(found.eps)
    small = found.input_size_px == _SMALL_PX
    pooled = (
        False
        if small
        else next((pool for name, pool in _STEMS.items() if found.name.startswith(name)), None)
    )
    if pooled is not None:
        values = ("1", "2") if small else ("2", "1")
        yield choice("stem_stride", values, "the first convolution has stride {}")
    if found.name.startswith("mobilenet_v3_"):
        # as in torchvision's segmentation networks; the constructor of the classifier takes it too
        yield network.DILATED
    if "darknet" in found.name:
        yield choice("negative_slope", ("0.01", "0.1"), "leaky ReLUs have slope {} below zero")
    if pooled:
        yield choice("pool", ("yes", "no"), "max pool after the stem: {}")


def _encoder(found: Signature, missing: frozenset[str]) -> Network:
    """The network less its last layers; where only the classifier is missing, it yields features.

    Where more is missing, it has feature maps and nothing else to give.
    """
    whole = _network(found, 1)
    expected = {name: shape for name, shape in whole.expected.items() if name not in missing}
    return replace(
        whole,
        head=(),
        expected=expected,
        build=partial(_build, found.name, expected, tuple(sorted(missing))),
        maps_only=missing != found.head,
    )


def _read(shapes: Shapes) -> Network | None:
    """By names: only a network that has all of them, or an encoder that lacks the last ones."""
    units = units_of(shapes)
    whole = [
        _network(found, _classes(units))
        for found in with_fingerprint(units)
        if found.tensors.keys() <= shapes.keys()
    ]
    encoders = [
        _encoder(found, missing)
        for found in with_opening(units)
        if (missing := _missing(found, shapes.keys())) is not None
    ]
    candidates = whole or encoders
    # several have the same names: efficientnet_b0 and tinynet_b, and one with group norms
    return min(candidates, key=lambda network: _unlike(network, shapes), default=None)


def _unlike(network: Network, shapes: Shapes) -> int:
    """How many tensors have no counterpart or one of another shape."""
    expected = network.expected
    other = [name for name in expected if squeezed(expected[name]) != squeezed(shapes[name])]
    return len(other) + len(shapes) - len(expected)


def _missing(found: Signature, names: Iterable[str]) -> frozenset[str] | None:
    """Which tensors `names` lack, if they are only of the last layers; else None."""
    missing = found.tensors.keys() - set(names)
    last = list(found.tensors)[len(found.tensors) - len(missing) :]
    layers = [name for name in missing if len(found.tensors[name]) > 1]
    if not found.head <= missing or set(last) != missing or len(layers) > _LAST_LAYERS:
        return None
    return frozenset(missing)


def _by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """The first that fits: what torchvision and timm both have is the same network."""
    for found in with_fingerprint(units):
        names = list(in_order(found.for_classes(_classes(units)), units))
        if names:
            return names
    fitting = [
        names
        for found in with_opening(units)
        for expected in _beginnings(found, units)
        for names in in_order(expected, units)
    ]
    return sorted(fitting, key=len)[:1]


def _beginnings(found: Signature, units: tuple[Unit, ...]) -> Iterable[dict[str, Shape]]:
    """The signature cut off where the file ends, if that is a possible encoder."""
    layers = [name for name, shape in found.tensors.items() if len(shape) in (2, 4)]
    have = sum(unit.kind in ("conv", "linear") for unit in units)
    if not len(layers) - _LAST_LAYERS <= have < len(layers):
        return
    names = list(found.tensors)
    cut = names.index(layers[have])
    if _missing(found, names[:cut]) is not None:
        yield {name: found.tensors[name] for name in names[:cut]}


def _named(name: str, head: Head) -> Network | None:
    """Asks the constructor itself where there is no signature of that name."""
    found = signature(name)
    if found is None:
        from resdeploy.export.architectures.modules.constructed import computed

        found = computed(name)
    return _network(found, head[-1].outputs) if found is not None and head else None


def _build(
    name: str, expected: Shapes, missing: tuple[str, ...], settings: Settings
) -> "nn.Module":
    from resdeploy.export.architectures.modules.constructed import construct_as, set_stem

    module = construct_as(name, expected, missing, dilated=settings.get("dilated") == "yes")
    set_stem(module, settings)
    return module


FAMILY = Family(
    name="constructed",
    stems=(
        *("features.0.weight", "features.0.0.weight", "features.conv0.weight", "conv1.0.weight"),
        *("layers.0.weight", "stem.0.weight", "conv_stem.weight", "stem.conv.weight"),
        *("base.0.weight", "conv1.weight"),
    ),
    translate=translate,
    read=_read,
    named=_named,
    references=(),
    by_position=_by_position,
    habits=habits_of,
)
