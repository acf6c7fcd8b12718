"""A pre-activation block: what its shortcut reads, and where it strides."""

import pytest
import torch
from torch import nn

from resdeploy.deploy.errors import InputError
from resdeploy.export.architectures.modules.preact_resnet import Block
from resdeploy.export.architectures.preact.layout import PreactBlock
from tests.builders import randomize_batch_norms


def block_of(*, bottleneck: bool, projected: bool, normed: bool = False) -> PreactBlock:
    return PreactBlock(bottleneck, 8, 4, 16 if projected else 8, 1, projected, normed)


@pytest.mark.parametrize("reads", ["the-activated-input", "the-input"])
def test_the_shortcut_convolution_reads_as_told(reads: str) -> None:
    shape = block_of(bottleneck=True, projected=True, normed=True)
    settings = {"stride": "3x3", "shortcut_reads": reads}
    block = randomize_batch_norms(Block(shape, 2, settings, first=True))
    assert block.shortcut is not None and block.last_bn is not None
    x = torch.randn(2, 8, 9, 9)
    activated = block.relu1(block.bn1(x))
    y = block.conv2(block.relu2(block.bn2(block.conv1(activated))))
    y = block.last_bn(block.conv3(block.relu3(block.bn3(y))))
    short = block.shortcut(activated if reads == "the-activated-input" else x)
    torch.testing.assert_close(block(x), y + short)


def test_a_shortcut_without_a_convolution_hands_on_what_is_told_in_the_first_block_only() -> None:
    shape = block_of(bottleneck=False, projected=False)
    settings = {"stride": "3x3", "first_shortcut": "the-activated-input"}
    assert Block(shape, 1, settings, first=True).reads_activated
    assert not Block(shape, 1, settings, first=False).reads_activated


@pytest.mark.parametrize(
    ("bottleneck", "stride", "strided"),
    [(True, "3x3", "conv2"), (True, "1x1", "conv1"), (False, "3x3", "conv1")],
)
def test_one_convolution_strides(bottleneck: bool, stride: str, strided: str) -> None:
    shape = block_of(bottleneck=bottleneck, projected=True)
    block = Block(shape, 2, {"stride": stride}, first=True)
    found = [
        name
        for name, part in block.named_children()
        if isinstance(part, nn.Conv2d) and part.stride == (2, 2)
    ]
    assert found == [strided, "shortcut"]


def test_a_stage_that_cannot_stride_is_refused() -> None:
    settings = {"stride": "3x3", "strides": "2,2"}
    with pytest.raises(InputError, match="strides=2,2: a stage whose shortcut has no convolution"):
        Block(block_of(bottleneck=False, projected=False), 2, settings, first=True)
