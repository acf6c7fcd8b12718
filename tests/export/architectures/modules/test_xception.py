"""An Xception block: its shortcut, its pool, and which ReLU comes first."""

import pytest
import torch
import torch.nn.functional as F

from resdeploy.export.architectures.inception.xception_layout import XceptionBlock
from resdeploy.export.architectures.modules.xception import Block, Separable
from tests.builders import randomize_batch_norms


def test_a_separable_convolution_mixes_channels_in_its_second_step_only() -> None:
    layer = Separable(4, 6)
    assert (layer.conv1.groups, layer.pointwise.kernel_size) == (4, (1, 1))
    assert layer(torch.zeros(1, 4, 7, 7)).shape == (1, 6, 7, 7)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("activated", [False, True])
def test_the_shortcut_reads_as_told_and_x_is_left_alone(first: bool, activated: bool) -> None:
    shape = XceptionBlock(4, (6, 6), projected=True)
    block = randomize_batch_norms(Block(shape, 2, first=first, reads_activated=activated))
    x = torch.randn(2, 4, 9, 9)
    before = x.clone()
    with torch.no_grad():
        begun = x if first else F.relu(x)
        short = block.skipbn(block.skip(begun if activated else x))
        expected = F.max_pool2d(block.rep(begun), 3, 2, 1) + short
        torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (2, 6, 5, 5) and torch.equal(x, before)


def test_without_a_projection_nothing_pools() -> None:
    block = randomize_batch_norms(
        Block(XceptionBlock(4, (4, 4), projected=False), 1, first=False, reads_activated=False)
    )
    x = torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(block(x), block.rep(F.relu(x)) + x)
