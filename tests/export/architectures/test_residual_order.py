"""Which layer is which, by the order and the shapes of a residual network's layers alone."""

import pytest
import timm
import torch
import torchvision.models as models

from resdeploy.export.architectures.residual_order import by_position
from resdeploy.export.architectures.units import Shapes, units_of
from resdeploy.export.matching.fitting import fits
from tests.export.architectures.rebuilding import (
    fit_of,
)


@pytest.mark.parametrize(
    ("name", "family"),
    [("resnet18", "resnet"), ("resnext50_32x4d", "resnet"), ("wide_resnet50_2", "resnet")],
)
def test_without_names_the_order_of_the_layers_is_enough(name: str, family: str) -> None:
    with torch.device("meta"):
        module = getattr(models, name)(num_classes=7)
    found = fit_of(module, keep=False)
    assert (found.network.name, found.family.name) == (name, family)
    assert found.matched_by == "structure" and found.network.classes == 7


def shortcut_first(name: str) -> tuple[int, ...]:
    """A key that lists a block's shortcut before its convolutions, as Hugging Face does."""
    parts = name.split(".")
    if not parts[0].startswith("layer"):
        return (9,) if parts[0] == "fc" else (0,)
    return int(parts[0][5:]), int(parts[1]), 0 if parts[2] == "downsample" else 1


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_a_shortcut_may_stand_before_its_block(name: str) -> None:
    with torch.device("meta"):
        state = getattr(models, name)(num_classes=7).state_dict()
    ordered = sorted(state, key=shortcut_first)
    assert ordered.index("layer2.0.downsample.0.weight") < ordered.index("layer2.0.conv1.weight")
    shapes = {f"x.{n}".replace("layer", "l"): tuple(state[n].shape) for n in ordered}
    found = fits(shapes)
    assert [reading.network.name for reading in found] == [name]
    assert found[0].names["layer1.0.conv1.weight"].endswith("l1.0.conv1.weight")
    if name != "resnet18":
        own = found[0].names["layer1.0.downsample.0.weight"]
        assert own.endswith("l1.0.downsample.0.weight")


def test_all_norms_may_stand_after_all_convolutions_of_a_block() -> None:
    with torch.device("meta"):
        state = models.resnet50(num_classes=7).state_dict()
    ordered: list[str] = []
    for holder in dict.fromkeys(".".join(name.split(".")[:2]) for name in state):
        inside = [name for name in state if f"{name}.".startswith(f"{holder}.")]
        norms = [name for name in inside if len(state[name].shape) < 2 and "fc" not in name]
        ordered += [*(name for name in inside if name not in norms), *norms]
    assert sorted(ordered) == sorted(state) and ordered != list(state)
    shapes = {f"q.{name}".replace("layer", "l"): tuple(state[name].shape) for name in ordered}
    assert [reading.network.name for reading in fits(shapes)] == ["resnet50"]


def nameless(shapes: Shapes) -> Shapes:
    """The same layers in the same order, called m0, m1, …"""
    modules: dict[str, str] = {}
    renamed = {}
    for name, shape in shapes.items():
        module, _, part = name.rpartition(".")
        renamed[f"{modules.setdefault(module, f'm{len(modules)}')}.{part}"] = shape
    return renamed


def test_a_deep_stem_without_names_fits_two_networks() -> None:
    with torch.device("meta"):
        module = timm.create_model("resnet18d", num_classes=7)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert [r.network.name for r in fits(nameless(shapes))] == ["resnet18c", "resnet18d"]
    assert [r.network.name for r in fits(shapes)] == ["resnet18d"]


def test_attention_along_the_channels_without_names() -> None:
    with torch.device("meta"):
        module = timm.create_model("ecaresnetlight", num_classes=7)
    found = fit_of(module, keep=False)
    assert (found.network.name, found.matched_by) == (
        "eca_resnet(bottleneck 1-1-11-3)",
        "structure",
    )
    assert found.names["layer1.0.se.conv.weight"]


def test_a_plain_stack_of_convolutions_is_no_residual_network() -> None:
    with torch.device("meta"):
        module = models.vgg16_bn(num_classes=7)
    shapes = {name: tuple(value.shape) for name, value in module.features.state_dict().items()}
    assert list(by_position(units_of(shapes))) == []


def test_residuals_that_are_multiplied_are_not_read() -> None:
    with torch.device("meta"):
        module = models.resnet18()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert list(by_position(units_of(shapes)))
    renamed = {
        name.replace("layer1.0.conv1", "conv2_x.0.residual.0"): s for name, s in shapes.items()
    }
    assert not list(by_position(units_of(renamed)))
