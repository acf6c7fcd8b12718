"""Torchvision's ResNets and any other of their form: recognised, rebuilt bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from resdeploy.deploy.errors import InputError
from resdeploy.export.matching.fitting import fit
from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import assert_same_function, rebuilt

TORCHVISION = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "mobilenet_v2",
]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_are_recognised_by_their_shapes(name: str) -> None:
    with torch.device("meta"):
        module = getattr(models, name)(num_classes=7)
    found = fit({key: tuple(value.shape) for key, value in module.state_dict().items()})
    assert found is not None
    assert (found.network.name, found.network.classes, found.prefix) == (name, 7, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "mobilenet_v2"])
def test_torchvisions_networks_are_rebuilt_bit_for_bit(name: str, tmp_path: Path) -> None:
    module = randomize_batch_norms(getattr(models, name)(num_classes=7))
    architecture, other = rebuilt(module, tmp_path)
    assert architecture.name == name
    assert architecture.classes == 7
    assert architecture.parameters == sum(p.numel() for p in module.parameters())
    assert not other.training and not any(p.requires_grad for p in other.parameters())
    assert_same_function(module, other)


def test_resnext_of_odd_cardinality(tmp_path: Path) -> None:
    module = randomize_batch_norms(
        ResNet(Bottleneck, [2, 3, 1, 2], 7, groups=8, width_per_group=14)
    )
    architecture, other = rebuilt(module, tmp_path)
    assert architecture.name == "resnet(2-3-1-2, 8x14d)"
    assert any("8 groups, base width 14" in sentence for sentence in architecture.evidence)
    assert_same_function(module, other)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(st.integers(1, 2), min_size=4, max_size=4),
    groups=st.integers(1, 9),
    base_width=st.integers(2, 9),
    classes=st.integers(1, 12),
)
def test_any_small_resnext_is_rebuilt(
    layers: list[int],
    groups: int,
    base_width: int,
    classes: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    module = ResNet(Bottleneck, layers, classes, groups=groups, width_per_group=base_width)
    architecture, other = rebuilt(randomize_batch_norms(module), tmp_path_factory.mktemp("resnext"))
    assert architecture.classes == classes
    assert_same_function(module, other, size_px=32)


def test_the_stride_of_a_bottleneck_is_assumed_and_can_be_told(tmp_path: Path) -> None:
    module = randomize_batch_norms(ResNet(Bottleneck, [1, 1, 1, 1], 7))
    for stage in (2, 3, 4):
        block: Any = module.get_submodule(f"layer{stage}.0")
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    architecture, _ = rebuilt(module, tmp_path)
    assert any("3x3" in s and "--assume stride=1x1" in s for s in architecture.assumptions)
    architecture, other = rebuilt(module, tmp_path, {"stride": "1x1"})
    assert not any("--assume stride=" in sentence for sentence in architecture.assumptions)
    assert "given: stride=1x1" in architecture.evidence
    assert_same_function(module, other)


def test_eps_activation_and_stage_strides_can_be_told(tmp_path: Path) -> None:
    module = randomize_batch_norms(models.mobilenet_v2(num_classes=7, width_mult=0.25))
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eps = 1e-3
        for name, activation in child.named_children():
            if isinstance(activation, nn.ReLU6):
                setattr(child, name, nn.ReLU())
    _, other = rebuilt(module, tmp_path, {"bn_eps": "1e-3", "activation": "relu"})
    assert_same_function(module, other)


@pytest.mark.parametrize(
    ("assume", "told"),
    [
        ({"strides": "1,2,2"}, "--assume strides=1,2,2 is not understood"),
        ({"bn_eps": "tiny"}, "--assume bn_eps=tiny is not understood"),
        ({"stride": "1x1"}, "has no such choice, expected one of strides, activation, bn_eps"),
        ({"strides": "2,2,2,2"}, "cannot have stride 2"),
    ],
)
def test_an_assumption_that_cannot_be_is_refused(
    assume: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told):
        rebuilt(ResNet(BasicBlock, [1, 1, 1, 1], 7), tmp_path, assume)
