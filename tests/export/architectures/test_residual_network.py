"""A residual network's reading becomes a network that can be built."""

import pytest
import torch
import torchvision.models as models

from resdeploy.export.architectures.family import Head, Linear
from resdeploy.export.architectures.residual import read_residual
from resdeploy.export.architectures.residual_network import residual_network


def shapes_of_resnet18() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = models.resnet18(num_classes=7).state_dict()
    kept = (name for name in state if not name.endswith("num_batches_tracked"))
    return {name: tuple(state[name].shape) for name in kept}


@pytest.mark.parametrize(
    ("head", "features", "classes"),
    [
        ((Linear("", 512, 7, True),), 512, 7),
        ((Linear("4", 1024, 512, True), Linear("8", 512, 7, True)), 1024, 7),
        ((), 512, None),
    ],
    ids=["linear", "fastai", "none"],
)
def test_heads(head: Head, features: int, classes: int | None) -> None:
    spec = read_residual(shapes_of_resnet18())
    assert spec is not None
    found = residual_network("mine", spec, head)
    assert (found.name, found.features, found.classes) == ("mine", features, classes)
    keys = {choice.key for choice in found.assumptions}
    assert "dilated" in keys and ("head_activation" in keys) == (len(head) == 2)
    settings = {choice.key: choice.default for choice in found.assumptions}
    with torch.device("meta"):
        module = found.build(settings)
    names = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == set(found.expected)


def test_expected_are_torchvisions_names_in_order() -> None:
    shapes = shapes_of_resnet18()
    spec = read_residual(shapes)
    assert spec is not None
    assert residual_network("x", spec, (Linear("", 512, 7, True),)).expected == shapes
