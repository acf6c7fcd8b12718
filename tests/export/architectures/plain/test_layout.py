"""VGG's convolutions stand where torchvision has them, and AlexNet's too."""

import pytest
import torch
import torchvision.models as models
from torch import nn

from resdeploy.export.architectures.plain.layout import ALEXNET_KERNELS, ALEXNET_PLACES, VggLayout


@pytest.mark.parametrize("normed", [False, True])
def test_places_are_torchvisions(normed: bool) -> None:
    widths = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    with torch.device("meta"):
        module = (models.vgg11_bn if normed else models.vgg11)(init_weights=False)
    theirs = [
        (place, layer.in_channels, layer.out_channels)
        for place, layer in enumerate(module.features)
        if isinstance(layer, nn.Conv2d)
    ]
    assert list(VggLayout(widths, normed, 7, ()).places()) == theirs


def test_alexnets_are_torchvisions() -> None:
    with torch.device("meta"):
        features = models.alexnet().features
    convs = {place: c.kernel_size for place, c in enumerate(features) if isinstance(c, nn.Conv2d)}
    assert convs == {p: (k, k) for p, k in zip(ALEXNET_PLACES, ALEXNET_KERNELS, strict=True)}
