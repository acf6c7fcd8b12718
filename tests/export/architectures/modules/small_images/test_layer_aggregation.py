"""Roots see all of their branches."""

import pytest
import torch

from resdeploy.export.architectures.modules.small_images.layer_aggregation import (
    LayerAggregation,
    SimpleTree,
    Tree,
)


@pytest.mark.parametrize("tree", [SimpleTree, Tree])
def test_a_tree_strides_once(tree: type[SimpleTree] | type[Tree]) -> None:
    x = torch.randn(2, 4, 8, 8)
    for level in (1, 2):
        assert tree(4, 6, level, 2)(x).shape == (2, 6, 4, 4)


def test_the_root_of_two_levels_sees_four_branches() -> None:
    assert Tree(4, 6, 2, 2).root.conv.in_channels == 4 * 6
    assert SimpleTree(4, 6, 2, 2).root.conv.in_channels == 2 * 6
    with torch.device("meta"):
        assert LayerAggregation(Tree, 7).linear.out_features == 7
