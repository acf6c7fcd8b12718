"""Heads under any name and of any layers compute what they did."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.modules.head import build_head
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import assert_same_function
from tests.networks import NarrowResNet

HEADS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "no bias": lambda: nn.Linear(128, 7, bias=False),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(128, 7)),
    "two layers": lambda: nn.Sequential(
        nn.Linear(128, 30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 7)
    ),
    "two linear layers": lambda: nn.Sequential(nn.Linear(128, 30), nn.Linear(30, 7)),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("called", ["fc", "classifier", "linear", "head"])
def test_heads_of_any_name(head: str, called: str, tmp_path: Path) -> None:
    module: nn.Module = NarrowResNet(BasicBlock, [1, 1, 1, 1])
    module.fc = HEADS[head]()
    randomize_batch_norms(module)
    path = tmp_path / "model.pth"
    state = {key.replace("fc.", f"{called}."): value for key, value in module.state_dict().items()}
    torch.save(state, path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint)
    assert (architecture.classes, architecture.features) == (None if head == "none" else 7, 128)
    asked = any("head the activation" in sentence for sentence in architecture.assumptions)
    assert asked == (head == "two layers")
    assert any("pooled features" in s for s in architecture.evidence) == (head == "none")
    assert_same_function(module, build_module(checkpoint, architecture), size_px=32)


@pytest.mark.parametrize(("activation", "relus"), [("relu", 1), ("none", 0)])
def test_a_relu_stands_where_there_is_room_for_it(activation: str, relus: int) -> None:
    head = (Linear("1", 8, 6, True), Linear("4", 6, 5, False), Linear("5", 5, 3, True))
    module = build_head(head, {"head_activation": activation})
    assert sum(isinstance(part, nn.ReLU) for part in module.modules()) == relus
    names = {"1.weight", "1.bias", "4.weight", "5.weight", "5.bias"}
    assert set(module.state_dict()) == names
    assert isinstance(build_head((), {}), nn.Identity)


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh"])
def test_other_activations_may_stand_there(activation: str) -> None:
    head = (Linear("0", 8, 6, True), Linear("2", 6, 5, True))
    module = build_head(head, {"head_activation": activation})
    assert type(list(module.children())[1]).__name__.lower() == activation
