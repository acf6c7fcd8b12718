"""MobileNetV1's blocks stride where the settings say."""

import pytest
import torch

from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.modules.mobilenet_v1 import MobileNetV1


@pytest.mark.parametrize(
    ("stem", "strides", "sides"),
    [("2", "1,2", [16, 16, 8]), ("1", "2,2", [32, 16, 8]), ("2", "1,1", [16, 16, 16])],
)
def test_strides(stem: str, strides: str, sides: list[int]) -> None:
    head = (Linear("", 8, 5, True),)
    module = MobileNetV1((4, 6, 8), head, {"stem_stride": stem, "strides": strides}).eval()
    seen: list[int] = []
    for block in module.model:
        block.register_forward_hook(lambda _, __, y: seen.append(y.shape[-1]))
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert seen == sides


def test_without_a_head_it_yields_the_mean_of_its_last_block() -> None:
    module = MobileNetV1((4, 6), (), {"stem_stride": "2", "strides": "1"}).eval()
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(module(x), module.model(x).mean((2, 3)))
