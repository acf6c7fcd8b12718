"""One small ResNet, saved in many ways."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import Checkpoint, read_checkpoint
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet

State = dict[str, torch.Tensor]
Save = Callable[..., Checkpoint]


@pytest.fixture(scope="session")
def small() -> ResNet:
    """A ResNet of one basic block per stage and three classes."""
    torch.manual_seed(0)
    module: ResNet = randomize_batch_norms(NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=3))
    return module


@pytest.fixture(scope="session")
def weights(small: ResNet) -> State:
    """Its state_dict; tests must not change it in place."""
    return dict(small.state_dict())


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save an object with `torch.save` and read it as a checkpoint."""

    def saved(content: Mapping[str, Any], name: str = "model.pth") -> Checkpoint:
        torch.save(content, tmp_path / name)
        return read_checkpoint(tmp_path / name)

    return saved


def assert_gives_the_logits_of(
    module: nn.Module, checkpoint: Checkpoint, *, atol: float = 0.0
) -> None:
    """The network built from `checkpoint` computes what `module` does, to `atol` of its largest."""
    other = build_module(checkpoint, identify(checkpoint))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = module(x)
        limit = atol * float(wanted.abs().max())
        torch.testing.assert_close(other(x), wanted, rtol=0, atol=limit)


def saved(module: nn.Module, folder: Path, prefix: str = "") -> Checkpoint:
    """The module's bare state_dict, saved and read again."""
    path = folder / "model.pth"
    state = {f"{prefix}{name}": value for name, value in module.state_dict().items()}
    torch.save(state, path)
    return read_checkpoint(path)


def untrained() -> ResNet:
    """A ResNet of one basic block per stage and seven classes."""
    return ResNet(BasicBlock, [1, 1, 1, 1], 7).eval()
