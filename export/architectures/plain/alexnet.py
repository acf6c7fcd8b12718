"""AlexNet of any width.

    11x11/4 → pool → 5x5 → pool → 3x3 x 3 → pool → three linear layers

Krizhevsky, arXiv:1404.5997, as torchvision numbers it (`features.0`, `.3`, `.6`, `.8`, `.10`).
Widths are read: the network of a widespread tutorial is half as wide. The first linear layer says
how many pixels it sees: 6x6 of an input of 224, or a single one of 32 (bearpaw's).

Dialects: torchvision; Cadene (`_features`, `linear0`, `last_linear`).
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Head, Network, Settings
from resdeploy.export.architectures.letters import word_of
from resdeploy.export.architectures.plain.layout import ALEXNET_KERNELS, ALEXNET_PLACES
from resdeploy.export.architectures.plain.names import translate_plain
from resdeploy.export.architectures.units import Shape, Shapes, Unit

if TYPE_CHECKING:
    from torch import nn

_HEAD_PLACES = ("1", "4", "6")
_TORCHVISION = (64, 192, 384, 256, 256)
_OTHER_HEADS = {"linear0": "classifier.1", "linear1": "classifier.4", "last_linear": "classifier.6"}


def _by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    found = re.fullmatch("KKCCC(L{0,3})", word_of(units))
    # pytorchcv's normalizes across channels, which no weight tells and this module does not do
    if found is None or units[0].name.endswith("stage1.unit1.conv"):
        return
    names = {
        f"features.{place}": unit.name for place, unit in zip(ALEXNET_PLACES, units, strict=False)
    }
    head = [unit.name for unit in units[len(ALEXNET_PLACES) :]]
    places = [f"classifier.{place}" for place in _HEAD_PLACES] if len(head) > 1 else ["classifier"]
    yield names | dict(zip(places, head, strict=False))


def _read(shapes: Shapes) -> Network | None:
    weights = [shapes.get(f"features.{place}.weight", ()) for place in ALEXNET_PLACES]
    if [weight[2:] for weight in weights] != [(kernel, kernel) for kernel in ALEXNET_KERNELS]:
        return None
    head = network.read_head(shapes, "classifier")
    widths = tuple(weight[0] for weight in weights)
    return _network(widths, isqrt(head[0].inputs // widths[-1]) if head else 6, head)


def _network(widths: tuple[int, ...], side: int, head: Head) -> Network:
    expected: dict[str, Shape] = {}
    inputs = 3
    for place, out, kernel in zip(ALEXNET_PLACES, widths, ALEXNET_KERNELS, strict=True):
        expected[f"features.{place}.weight"] = (out, inputs, kernel, kernel)
        expected[f"features.{place}.bias"] = (out,)
        inputs = out
    features = widths[-1] * side**2
    expected.update(network.head_shapes(head, "classifier", features))
    usual = widths == _TORCHVISION
    return Network(
        name="alexnet" if usual else f"alexnet({'-'.join(map(str, widths))})",
        features=features,
        head=head,
        expected=expected,
        build=partial(_build, widths, side, head),
        assumptions=(network.activation("relu"), *network.head_assumptions(head)),
        evidence=(
            f"five convolutions, {'-'.join(map(str, widths))} wide; the head sees "
            f"{side}x{side} pixels",
        ),
        input_size_px=32 if side == 1 else 224,
        # the narrow one is the tutorial's, which normalizes with 0.5
        preprocess="cifar" if side == 1 else "imagenet" if usual else "half",
    )


def _named(name: str, head: Head) -> Network | None:
    return _network(_TORCHVISION, 6, head) if name == "alexnet" else None


def _build(widths: tuple[int, ...], side: int, head: Head, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.plain import build_alexnet

    return build_alexnet(widths, side, head, settings)


FAMILY = Family(
    name="alexnet",
    stems=("features.0.weight", "_features.0.weight"),
    translate=partial(translate_plain, heads=_OTHER_HEADS),
    read=_read,
    named=_named,
    references=("alexnet",),
    by_position=_by_position,
)
