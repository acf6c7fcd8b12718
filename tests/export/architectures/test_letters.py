"""A network's layers as a word."""

import torch
from torch import nn

from resdeploy.export.architectures.letters import word_of
from resdeploy.export.architectures.units import units_of


def word(*layers: nn.Module) -> str:
    state = nn.Sequential(*layers).state_dict()
    return word_of(units_of({name: tuple(tensor.shape) for name, tensor in state.items()}))


def test_every_kind_of_layer_has_its_letter() -> None:
    with torch.device("meta"):
        found = word(
            *(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
            *(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 5)),
            *(nn.Conv1d(2, 2, 3), nn.Linear(4, 2)),
        )
    assert found == "nCNDPK?L"


def test_a_depthwise_1x1_is_a_1x1_and_one_channel_to_one_is_3x3() -> None:
    with torch.device("meta"):
        assert word(nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(1, 1, 3)) == "PC"
