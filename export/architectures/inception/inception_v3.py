"""Inception v3 as torchvision has it, for 299x299 pixels.

    five convolutions, two pools → Mixed_5b … 5d → 6a … 6e → 7a … 7c → global average → fc

Szegedy et al., arXiv:1512.00567. Every convolution has a batch norm of eps 1e-3 behind it. The
auxiliary head serves training only and is left out. Cadene and timm have the same network under
the same names, without `transform_input`, and preprocess with mean and std 0.5 instead, which
comes to the same.

weiaicunzai's, for images of 32 pixels, is told by a 3x3 behind the pools of Mixed_5b: nothing
strides before Mixed_6a, 7x1 comes before 1x7, and Mixed_7a averages where this one takes the
maximum.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Habits, Head, Network, Settings
from resdeploy.export.architectures.inception.googlenet import TRANSFORM_INPUT
from resdeploy.export.architectures.inception.names import translate_head_only
from resdeploy.export.architectures.units import Shape, Shapes, Unit, in_order

if TYPE_CHECKING:
    from torch import nn

_FEATURES = 2048
_Conv = tuple[str, int, int, tuple[int, int]]  # name, out, in, kernel
_FIRST = "Conv2d_1a_3x3.conv.weight"


def _stem() -> Iterable[_Conv]:
    for name, out, inputs, side in (
        ("Conv2d_1a_3x3", 32, 3, 3),
        ("Conv2d_2a_3x3", 32, 32, 3),
        ("Conv2d_2b_3x3", 64, 32, 3),
        ("Conv2d_3b_1x1", 80, 64, 1),
        ("Conv2d_4a_3x3", 192, 80, 3),
    ):
        yield name, out, inputs, (side, side)


def _figure_5(name: str, inputs: int, pool: int, *, small: bool) -> Iterable[_Conv]:
    yield f"{name}.branch1x1", 64, inputs, (1, 1)
    yield f"{name}.branch5x5_1", 48, inputs, (1, 1)
    yield f"{name}.branch5x5_2", 64, 48, (5, 5)
    yield f"{name}.branch3x3dbl_1", 64, inputs, (1, 1)
    yield f"{name}.branch3x3dbl_2", 96, 64, (3, 3)
    yield f"{name}.branch3x3dbl_3", 96, 96, (3, 3)
    yield f"{name}.branch_pool", pool, inputs, (3, 3) if small else (1, 1)


def _reduction_6a() -> Iterable[_Conv]:
    yield "Mixed_6a.branch3x3", 384, 288, (3, 3)
    yield "Mixed_6a.branch3x3dbl_1", 64, 288, (1, 1)
    yield "Mixed_6a.branch3x3dbl_2", 96, 64, (3, 3)
    yield "Mixed_6a.branch3x3dbl_3", 96, 96, (3, 3)


def _figure_6(name: str, inside: int, *, small: bool) -> Iterable[_Conv]:
    yield f"{name}.branch1x1", 192, 768, (1, 1)
    for branch, kernels in (
        ("branch7x7", ((1, 1), (7, 1), (1, 7)) if small else ((1, 1), (1, 7), (7, 1))),
        ("branch7x7dbl", ((1, 1), (7, 1), (1, 7), (7, 1), (1, 7))),
    ):
        inputs = 768
        for number, kernel in enumerate(kernels, start=1):
            out = 192 if number == len(kernels) else inside
            yield f"{name}.{branch}_{number}", out, inputs, kernel
            inputs = out
    yield f"{name}.branch_pool", 192, 768, (1, 1)


def _reduction_7a() -> Iterable[_Conv]:
    yield "Mixed_7a.branch3x3_1", 192, 768, (1, 1)
    yield "Mixed_7a.branch3x3_2", 320, 192, (3, 3)
    kernels = ((1, 1), (1, 7), (7, 1), (3, 3))
    for number, kernel in enumerate(kernels, start=1):
        yield f"Mixed_7a.branch7x7x3_{number}", 192, 768 if number == 1 else 192, kernel


def _figure_7(name: str, inputs: int) -> Iterable[_Conv]:
    yield f"{name}.branch1x1", 320, inputs, (1, 1)
    yield f"{name}.branch3x3_1", 384, inputs, (1, 1)
    yield f"{name}.branch3x3_2a", 384, 384, (1, 3)
    yield f"{name}.branch3x3_2b", 384, 384, (3, 1)
    yield f"{name}.branch3x3dbl_1", 448, inputs, (1, 1)
    yield f"{name}.branch3x3dbl_2", 384, 448, (3, 3)
    yield f"{name}.branch3x3dbl_3a", 384, 384, (1, 3)
    yield f"{name}.branch3x3dbl_3b", 384, 384, (3, 1)
    yield f"{name}.branch_pool", 192, inputs, (1, 1)


def _convs(*, small: bool) -> Iterable[_Conv]:
    yield from _stem()
    for name, inputs, pool in (
        ("Mixed_5b", 192, 32),
        ("Mixed_5c", 256, 64),
        ("Mixed_5d", 288, 64),
    ):
        yield from _figure_5(name, inputs, pool, small=small)
    yield from _reduction_6a()
    for name, inside in (
        ("Mixed_6b", 128),
        ("Mixed_6c", 160),
        ("Mixed_6d", 160),
        ("Mixed_6e", 192),
    ):
        yield from _figure_6(name, inside, small=small)
    yield from _reduction_7a()
    for name, inputs in (("Mixed_7b", 1280), ("Mixed_7c", 2048)):
        yield from _figure_7(name, inputs)


def _expected(head: Head, *, small: bool) -> dict[str, Shape]:
    expected: dict[str, Shape] = {}
    for name, out, inputs, kernel in _convs(small=small):
        expected[f"{name}.conv.weight"] = (out, inputs, *kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.bn.{part}"] = (out,)
    expected.update(network.head_shapes(head, "fc", _FEATURES))
    return expected


def _by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    if sum(unit.kind == "conv" for unit in units) < len(list(_convs(small=False))):
        return
    heads = [unit for unit in units if unit.kind == "linear"]
    head = tuple(network.Linear("", u.shape[1], u.shape[0], "bias" in u.parts) for u in heads)
    for small in (False, True):
        yield from in_order(_expected(head, small=small), units)


def _read(shapes: Shapes) -> Network | None:
    if _FIRST not in shapes:
        return None
    pooled = shapes.get("Mixed_5b.branch_pool.conv.weight", ())
    return _network(network.read_head(shapes, "fc"), small=pooled[2:] == (3, 3))


def _named(name: str, head: Head) -> Network | None:
    return _network(head, small=False) if name == "inception_v3" else None


def _network(head: Head, *, small: bool) -> Network:
    return Network(
        name="inception_v3_32px" if small else "inception_v3",
        features=_FEATURES,
        head=head,
        expected=_expected(head, small=small),
        build=partial(_build, head, small),
        assumptions=(
            TRANSFORM_INPUT.with_default("no" if small else "yes"),
            network.BN_EPS.with_default("1e-5" if small else "1e-3"),
            *network.head_assumptions(head),
        ),
        evidence=("the convolutions of Inception v3, each with a batch norm",),
        input_size_px=32 if small else 299,
        preprocess="cifar" if small else "imagenet",
        unused=(r"AuxLogits\.",),
    )


def _build(head: Head, small: bool, settings: Settings) -> "nn.Module":
    from resdeploy.export.architectures.modules.inception_v3 import build_inception_v3

    return build_inception_v3(head, settings, small=small)


def _habits(shapes: Shapes) -> Habits:
    if any(name.endswith("last_linear.weight") for name in shapes):
        return Habits("Cadene", {"transform_input": "no"}, preprocess="half")
    return network.NO_HABITS


FAMILY = Family(
    name="inception_v3",
    stems=(_FIRST,),
    translate=translate_head_only,
    read=_read,
    named=_named,
    references=("inception_v3",),
    by_position=_by_position,
    habits=_habits,
)
