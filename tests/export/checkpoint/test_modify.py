"""Settings that every network has, applied to a finished module."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from resdeploy.export.checkpoint.modify import apply_settings
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet


def network() -> ResNet:
    torch.manual_seed(0)
    module: ResNet = randomize_batch_norms(NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=3))
    return module.requires_grad_(False)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(1))


def test_bgr_is_the_network_fed_with_reversed_channels(x: torch.Tensor) -> None:
    changed = network()
    apply_settings(changed, {"channels": "bgr"})
    torch.testing.assert_close(changed(x), network()(x.flip(1)), rtol=0, atol=1e-5)


def test_range_255_is_the_network_fed_with_255_times_the_input(x: torch.Tensor) -> None:
    changed = network()
    apply_settings(changed, {"range": "255"})
    torch.testing.assert_close(changed(x), network()(x * 255), rtol=0, atol=1e-3)


def test_eps_and_activation(x: torch.Tensor) -> None:
    changed = network()
    apply_settings(changed, {"bn_eps": "1e-3", "activation": "relu6"})
    assert {m.eps for m in changed.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert sum(isinstance(m, nn.ReLU6) for m in changed.modules()) == 5
    assert not any(type(m) is nn.ReLU for m in changed.modules())


@pytest.mark.parametrize("size", [64, 65])
def test_padding_as_tensorflow(size: int) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)
    )
    module.requires_grad_(False)
    first: Any = module[0]
    last = module[2]
    x = torch.randn(1, 3, size, size)
    # SAME with kernel 3 and stride 2: one pixel at the end of an even size, one on each side of odd
    pad = (1, 1, 1, 1) if size % 2 else (0, 1, 0, 1)
    y = F.conv2d(F.pad(x, pad), first.weight, first.bias, 2)
    side = y.shape[2]
    pad = (1, 1, 1, 1) if side % 2 else (0, 1, 0, 1)
    y = F.max_pool2d(F.pad(y, pad, value=float("-inf")), 3, 2)
    wanted = last(y)
    apply_settings(module, {"padding": "tf"})
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=0)


def test_silu_takes_the_place_of_relu(x: torch.Tensor) -> None:
    changed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    apply_settings(changed, {"activation": "silu"})
    with torch.no_grad():
        inner = changed[0](x)
        torch.testing.assert_close(changed(x), inner * inner.sigmoid())
