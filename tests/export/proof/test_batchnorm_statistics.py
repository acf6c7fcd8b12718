"""What batch norms see of images, beside what they stored; distances are in test_discrepancy.py."""

import numpy as np
import torch
from torch import nn

from resdeploy.export.proof.batchnorm_statistics import Layer, observe, trained_batchnorms


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.BatchNorm2d(8)
    )
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, 9, 9))
    return network.eval()


def test_observe_sees_the_input_of_every_batch_norm_in_order() -> None:
    network = _network()
    batch = torch.randn(6, 3, 9, 9)
    layers = observe(network, [batch[:4], batch[4:]])
    with torch.no_grad():
        first = network[0](batch)
    assert [layer.name for layer in layers] == ["1", "3"]
    np.testing.assert_allclose(layers[0].means, first.mean(dim=(2, 3)).numpy(), atol=1e-6)
    expected = first.var(dim=(2, 3), correction=0).numpy()
    np.testing.assert_allclose(layers[0].variances, expected, rtol=1e-5)
    assert not any(part._forward_pre_hooks for part in network.modules())


def test_a_batch_norm_that_was_never_trained_or_was_folded_does_not_testify() -> None:
    network = _network()
    untouched = nn.BatchNorm2d(8).eval()
    assert list(trained_batchnorms(nn.Sequential(*network, untouched))) == ["1", "3"]


def test_images_whose_statistics_are_the_stored_ones_lie_at_zero() -> None:
    stored = np.array([0.5, -1.0])
    means = np.tile(stored, (6, 1)).astype(np.float32)
    layer = Layer("bn", stored, np.ones(2), 1e-5, means, np.ones((6, 2), np.float32))
    np.testing.assert_allclose(layer.vectors(), np.zeros((6, 4)), atol=1e-6)
    shifted = Layer("bn", stored, np.ones(2), 0.0, means + 1, np.ones((6, 2), np.float32))
    expected = [[0.5, 0.5, 0, 0]] * 6  # (1 / √2) / √2 channels, and the variance is right
    np.testing.assert_allclose(shifted.vectors(), expected, atol=1e-3)
