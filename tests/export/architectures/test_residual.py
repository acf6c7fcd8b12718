"""Residual networks beyond torchvision's own, against the constructors of timm and torchvision."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision.models as models
from torch import nn
from torchvision.models.resnet import BasicBlock

from tests.export.architectures.rebuilding import same_before_and_after_the_fold
from tests.networks import NarrowResNet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("resnet18d", "resnet18d"),
        ("ecaresnet26t", "eca_resnetd(bottleneck 2-2-2-2)"),
        ("legacy_seresnet18", "se_resnet18"),
        ("legacy_seresnext26_32x4d", "se_resnet(2-2-2-2, 32x4d)"),
    ],
)
def test_timms_variants_give_timms_logits(name: str, called: str, tmp_path: Path) -> None:
    module = timm.create_model(name, num_classes=7).eval()
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 64)
    assert architecture.name == called
    assert fold.left == 0


def test_every_convolution_may_have_a_bias_under_its_norm(tmp_path: Path) -> None:
    module = NarrowResNet(BasicBlock, [1, 1, 1, 1], 7)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.bias = nn.Parameter(torch.randn(part.out_channels))
    architecture, fold = same_before_and_after_the_fold(module.eval(), tmp_path, 64)
    assert "12 convolutions have a bias of their own, which is folded too" in architecture.evidence
    assert (len(fold.folded), fold.left) == (12, 0)


def shortened() -> nn.Module:
    """ResNet-18 without its last stage and one block."""
    module: nn.Module = models.resnet18(num_classes=7)
    module.layer4 = nn.Sequential()
    module.layer3 = nn.Sequential(module.get_submodule("layer3.0"))
    module.fc = nn.Linear(256, 7)
    return module


@pytest.mark.slow
def test_a_shallow_network_has_as_many_stages_as_it_has(tmp_path: Path) -> None:
    architecture, _ = same_before_and_after_the_fold(shortened().eval(), tmp_path, 64)
    assert architecture.name == "resnet(basic 2-2-1)"
