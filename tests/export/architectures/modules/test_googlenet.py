"""GoogLeNet computes what torchvision's does; one norm may have its width as eps."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import GoogLeNet

from resdeploy.export.architectures.inception.googlenet_layout import Conv
from resdeploy.export.architectures.modules.googlenet import Inception, WidthAsEps
from tests.export.architectures.rebuilding import same_before_and_after_the_fold


@pytest.mark.slow
def test_torchvisions(tmp_path: Path) -> None:
    module = GoogLeNet(7, aux_logits=False, transform_input=True, init_weights=False)
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 64)
    assert (architecture.name, architecture.classes) == ("googlenet", 7)
    assert (len(fold.folded), fold.left) == (57, 0)


def test_a_norm_with_its_width_as_eps() -> None:
    module, usual = WidthAsEps(16).eval(), nn.BatchNorm2d(16, eps=16.0).eval()
    statistics = {"running_mean": torch.randn(16), "running_var": torch.rand(16)}
    for norm in (module, usual):
        norm.load_state_dict({**norm.state_dict(), **statistics})
    x = torch.randn(2, 16, 3, 3)
    torch.testing.assert_close(module(x), usual(x))


@pytest.mark.parametrize("width_as_eps", [False, True])
def test_only_the_middle_norm_of_the_third_branch_has_it(width_as_eps: bool) -> None:
    reduces, ends = ("branch2.0", "branch3.0"), ("branch1", "branch2.1", "branch3.1", "branch4.1")
    convs = tuple(
        Conv(f"3a.{name}", 4, 4 if name in ("branch2.1", "branch3.1") else 8, 1)
        for name in sorted((*reduces, *ends))
    )
    module = Inception(convs, True, width_as_eps=width_as_eps).eval()
    assert module(torch.randn(1, 8, 5, 5)).shape == (1, 16, 5, 5)
    found = [name for name, part in module.named_modules() if isinstance(part, WidthAsEps)]
    assert found == (["branch3.1.bn"] if width_as_eps else [])
