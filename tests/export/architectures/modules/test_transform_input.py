"""Inception's own normalization, from ImageNet's to that of TensorFlow."""

import torch
from torchvision.models.inception import Inception3
from torchvision.transforms.functional import normalize

from resdeploy.deploy.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from resdeploy.export.architectures.modules.transform_input import TransformInput


def test_pixels_end_between_minus_one_and_one() -> None:
    pixels = torch.rand(2, 3, 5, 5)
    x = normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(TransformInput()(x), 2 * pixels - 1, rtol=0, atol=1e-6)


def test_it_is_torchvisions() -> None:
    with torch.device("meta"):
        theirs = Inception3(7, aux_logits=False, transform_input=True, init_weights=False)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(TransformInput()(x), theirs._transform_input(x), rtol=0, atol=1e-6)
