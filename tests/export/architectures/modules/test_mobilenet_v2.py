"""MobileNetV2 computes what torchvision's does, block by block."""

import pytest
import torch
from torchvision.models.mobilenetv2 import InvertedResidual as Torchvisions
from torchvision.models.mobilenetv2 import MobileNetV2 as TorchvisionsNetwork

from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.modules.mobilenet_v2 import InvertedResidual, MobileNetV2, Row
from tests.builders import randomize_batch_norms


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("out", "ratio"), [(8, 6), (8, 1), (12, 6)])
def test_a_block_is_torchvisions(out: int, ratio: int, stride: int) -> None:
    theirs = randomize_batch_norms(Torchvisions(8, out, stride, ratio))
    ours = InvertedResidual(8, Row(8 * ratio, out, ratio != 1, False, stride)).eval()
    ours.load_state_dict(theirs.state_dict())
    assert ours.adds == theirs.use_res_connect
    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_a_convolution_on_the_shortcut_adds_where_the_width_changes() -> None:
    block = randomize_batch_norms(InvertedResidual(8, Row(16, 12, True, True, 1)))
    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(block(x), block.conv(x) + block.shortcut(x))


@pytest.mark.parametrize(("padding", "side"), [(None, 17), ("0", 15)])
def test_the_stem_pads_as_told(padding: str | None, side: int) -> None:
    told = {} if padding is None else {"stem_padding": padding}
    row = Row(8, 8, False, False, 1)
    module = MobileNetV2((8, 3), [row], 16, (), {"stem_stride": "1", **told}).eval()
    assert module.features(torch.zeros(1, 3, 17, 17)).shape[-1] == side


def test_the_network_is_torchvisions() -> None:
    setting = [[1, 8, 1, 1], [6, 16, 2, 2]]
    theirs = randomize_batch_norms(TorchvisionsNetwork(5, 1.0, setting))
    rows = [Row(32, 8, False, False, 1), Row(48, 16, True, False, 2), Row(96, 16, True, False, 1)]
    head = (Linear("1", 1280, 5, True),)
    ours = MobileNetV2((32, 3), rows, 1280, head, {"stem_stride": "2"}).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
