"""The parts of a residual network compute what torchvision's and the papers' do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import SqueezeExcitation as TorchvisionSqueeze

from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.modules.residual import (
    LocalAttention,
    PaddedShortcut,
    ResidualNet,
    SqueezeExcitation,
)
from resdeploy.export.architectures.residual import read_residual
from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import (
    rebuilt,
)


@pytest.mark.parametrize(
    ("assume", "change"),
    [
        ({"pool": "no"}, lambda net: setattr(net, "maxpool", nn.Identity())),
        (
            {"pool_padding": "0"},
            lambda net: setattr(net, "maxpool", nn.MaxPool2d(3, 2, ceil_mode=True)),
        ),
        ({"stem_stride": "1"}, lambda net: setattr(net.conv1, "stride", (1, 1))),
    ],
)  # fmt: skip
def test_what_the_stem_does_can_be_told(
    assume: dict[str, str], change: Callable[[Any], None], tmp_path: Path
) -> None:
    module = randomize_batch_norms(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=7)).eval()
    change(module)
    _, other = rebuilt(module, tmp_path, assume)
    x = torch.randn(1, 3, 70, 70)
    with torch.no_grad():
        torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)


def test_a_padded_shortcut_takes_every_second_pixel_between_zero_channels() -> None:
    x = torch.randn(2, 3, 5, 5)
    y = PaddedShortcut(1, 2, 2)(x)
    assert y.shape == (2, 6, 3, 3)
    assert torch.equal(y[:, 1:4], F.max_pool2d(x, 1, 2)) and not y[:, [0, 4, 5]].any()


def test_squeeze_and_excitation_is_torchvisions() -> None:
    ours, theirs = SqueezeExcitation(8, 2), TorchvisionSqueeze(8, 2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_local_attention_is_timms() -> None:
    theirs: Any = pytest.importorskip("timm.layers").EcaModule(kernel_size=3)
    ours = LocalAttention(3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_head_for_twice_the_features_gets_maxima_before_means() -> None:
    module = randomize_batch_norms(ResNet(BasicBlock, [1, 1, 1, 1]))
    body = nn.Sequential(*list(module.children())[:-2])
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    spec = read_residual(shapes)
    assert spec is not None
    head = (Linear("", 1024, 3, True),)
    settings = {"strides": "1,2,2,2", "stem_stride": "2", "pool": "yes"}
    net = ResidualNet(spec, head, settings).eval()
    state = {k: v for k, v in module.state_dict().items() if not k.startswith("fc.")}
    net.load_state_dict(state, strict=False)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = body(x)
        pooled = torch.cat([features.amax((2, 3)), features.mean((2, 3))], 1)
        torch.testing.assert_close(net(x), net.get_submodule("fc")(pooled))
