"""Where the blocks attend, stride and add."""

import torch

from resdeploy.export.architectures.modules.small_images.attention import (
    Attention,
    Bottleneck,
    Inverted,
    PreActivated,
)


def test_attention_scales_channels() -> None:
    x = torch.rand(2, 8, 4, 4) + 0.1
    scale = Attention(8, 2, silu=True)(x).detach() / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))
    assert float(scale.min()) > 0 and float(scale.max()) < 1


def test_blocks_stride_once() -> None:
    x = torch.randn(2, 16, 8, 8)
    for block in (PreActivated(16, 32, 2), Bottleneck(16, 32, 2), Inverted(16, 32, 5, 2, 6)):
        assert block(x).shape == (2, 32, 4, 4)


def test_without_an_expansion_the_first_convolution_is_idle() -> None:
    block = Inverted(16, 16, 3, 1, 1).eval()
    x = torch.randn(2, 16, 8, 8)
    before = block(x)
    torch.nn.init.zeros_(block.conv1.weight)
    torch.testing.assert_close(block(x), before)
