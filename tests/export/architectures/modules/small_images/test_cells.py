"""A cell widens where it strides."""

import pytest
import torch

from resdeploy.export.architectures.modules.small_images.cells import CellA, CellB, CellNet


@pytest.mark.parametrize("cell", [CellA, CellB])
def test_cells(cell: type[CellA]) -> None:
    x = torch.randn(2, 4, 8, 8)
    assert cell(4, 4, 1)(x).shape == (2, 4, 8, 8)
    assert cell(4, 8, 2)(x).shape == (2, 8, 4, 4)
    assert not hasattr(cell(4, 4, 1), "conv1") and hasattr(cell(4, 8, 2), "conv1")


def test_a_network_widens_twice() -> None:
    with torch.device("meta"):
        assert CellNet(CellA, 4, 7).linear.in_features == 16
