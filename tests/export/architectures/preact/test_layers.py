"""A pre-activation ResNet by the order of its layers.

What is read of it is its layout (`preact/layout.py`, data only), which is compared here too.
"""

import pytest

from resdeploy.export.architectures.preact.layers import by_position
from resdeploy.export.architectures.preact.layout import PreactBlock, PreactLayout
from resdeploy.export.architectures.preact.resnet import FAMILY
from resdeploy.export.architectures.units import Shapes, units_of


def norm(name: str, channels: int) -> Shapes:
    return {
        f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
    }


def network(*, input_norm: bool, last_norm: bool, shortcut_first: bool) -> Shapes:
    """Two stages of one basic block each under our names."""
    shapes: Shapes = {
        **(norm("input_norm", 3) if input_norm else {}),
        "conv1.weight": (8, 3, 3, 3),
        **_block("layer1.0", 8, 8),
    }
    shortcut = {"layer2.0.shortcut.weight": (16, 8, 1, 1)}
    block = _block("layer2.0", 8, 16)
    second = {**shortcut, **block} if shortcut_first else {**block, **shortcut}
    return {**shapes, **second, **(norm("bn", 16) if last_norm else {}), "fc.weight": (5, 16)}


def _block(name: str, inputs: int, out: int) -> Shapes:
    return {
        **norm(f"{name}.bn1", inputs),
        f"{name}.conv1.weight": (out, inputs, 3, 3),
        **norm(f"{name}.bn2", out),
        f"{name}.conv2.weight": (out, out, 3, 3),
    }


@pytest.mark.parametrize("input_norm", [False, True])
@pytest.mark.parametrize("last_norm", [False, True])
@pytest.mark.parametrize("shortcut_first", [False, True])
def test_each_layer_gets_its_own_name(
    input_norm: bool, last_norm: bool, shortcut_first: bool
) -> None:
    shapes = network(input_norm=input_norm, last_norm=last_norm, shortcut_first=shortcut_first)
    modules = {name.rpartition(".")[0] for name in shapes}
    assert {name: name for name in modules} in list(by_position(units_of(shapes)))


def test_a_network_that_widens_without_a_convolution_is_another_one() -> None:
    """A ResNet for CIFAR whose shortcuts add zero channels is the same sequence of layers."""

    def layers(second: int) -> Shapes:
        shapes: Shapes = {"conv1.weight": (8, 3, 3, 3), **norm("bn1", 8)}
        for stage, (inputs, out) in enumerate(((8, 8), (8, second)), start=1):
            name = f"layer{stage}.0"
            shapes = {
                **shapes,
                f"{name}.conv1.weight": (out, inputs, 3, 3),
                **norm(f"{name}.bn1", out),
                f"{name}.conv2.weight": (out, out, 3, 3),
                **norm(f"{name}.bn2", out),
            }
        return {**shapes, "fc.weight": (5, second)}

    assert list(by_position(units_of(layers(16)))) == []
    assert list(by_position(units_of(layers(8)))) != []


def test_the_layout_is_that_of_the_shapes() -> None:
    found = FAMILY.read(network(input_norm=True, last_norm=False, shortcut_first=False))
    assert found is not None
    first = PreactBlock(False, 8, 8, 8, 1, projected=False, normed=False)
    second = PreactBlock(False, 8, 16, 16, 1, projected=True, normed=False)
    layout = PreactLayout(8, 3, True, False, False, ((first,), (second,)))
    assert found.build.args[0] == layout  # type: ignore[attr-defined]
