"""Stages follow each other under the names that their authors gave them."""

import torch
from torch import nn

from resdeploy.export.architectures.modules.small_images.staged import StagedNet


def test_stages_in_their_order() -> None:
    stages = [nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.Conv2d(6, 8, 1, bias=False)]
    module = StagedNet(4, stages, 8, 5).eval()
    layers = [name.partition(".")[0] for name in module.state_dict() if name.endswith("weight")]
    assert layers == ["conv1", "bn1", "layer1", "layer2", "linear"]
    assert module(torch.randn(2, 3, 8, 8)).shape == (2, 5)
