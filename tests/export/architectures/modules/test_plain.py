"""Networks without branches: what stands between features and head."""

import pytest
import torch
from torch import nn
from torchvision.models import AlexNet

from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.modules.plain import PlainNet, build_alexnet, build_vgg
from resdeploy.export.architectures.plain.layout import VggLayout


def test_features_are_averaged_to_the_heads_size_at_any_other_size() -> None:
    module = PlainNet(nn.Sequential(nn.Identity()), 2, nn.Identity())
    small, large = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 4, 4)
    assert torch.equal(module(small), small.flatten(1))
    torch.testing.assert_close(module(large), nn.functional.avg_pool2d(large, 2).flatten(1))


def test_vgg_pools_behind_each_stage_and_numbers_as_torchvision_does() -> None:
    layout = VggLayout(((4,), (6, 6)), normed=True, side=1, head_shapes=((5, 6),))
    module = build_vgg(layout, (Linear("", 6, 5, True),), {}).eval()
    kinds = [type(part).__name__ for part in module.get_submodule("features").children()]
    convolution = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [*convolution, "MaxPool2d", *convolution, *convolution, "MaxPool2d"]
    names = [name for name, _ in module.get_submodule("features").named_children()]
    assert names == [str(number) for number in range(11)]
    assert module(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


@pytest.mark.slow
def test_alexnet_is_torchvisions() -> None:
    theirs = AlexNet(7).eval()
    head = tuple(
        Linear(name, layer.in_features, layer.out_features, True)
        for name, layer in theirs.classifier.named_children()
        if isinstance(layer, nn.Linear)
    )
    ours = build_alexnet((64, 192, 384, 256, 256), 6, head, {"head_activation": "relu"}).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_the_smaller_alexnet_leaves_one_pixel_of_32() -> None:
    module = build_alexnet((4, 4, 4, 4, 4), 1, (), {})
    assert module.get_submodule("features")(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 1, 1)
