"""What is added and what is joined."""

import torch

from resdeploy.export.architectures.modules.small_images.dual_path import (
    DualPathBlock,
    DualPathNet,
)


def test_the_first_channels_are_added_to_and_the_rest_is_joined() -> None:
    block = DualPathBlock(64, 32, 40, 8, 1, first=False).eval()
    x = torch.rand(2, 64, 5, 5)
    y = block(x)
    assert y.shape == (2, 64 + 8, 5, 5)
    torch.testing.assert_close(y[:, 40:64], x[:, 40:])
    assert DualPathBlock(64, 32, 40, 8, 2, first=True)(x).shape == (2, 40 + 8 + 8, 3, 3)


def test_stages_widen_by_what_each_block_joins() -> None:
    with torch.device("meta"):
        module = DualPathNet((1, 1, 1, 1), 7)
    assert module.linear.in_features == 2048 + 2 * 128
