"""Ranges of quantization-aware training stand apart, the network is read as ever."""

import torch
from torchvision.models.resnet import ResNet

from tests.export.checkpoint.conftest import Save, State, assert_gives_the_logits_of


def test_amax_of_pytorch_quantization_and_modelopt(
    small: ResNet, weights: State, save: Save
) -> None:
    extra = {
        "conv1._input_quantizer._amax": torch.tensor(2.5),
        "conv1._weight_quantizer._amax": torch.full((64, 1, 1, 1), 0.5),
        "fc.input_quantizer._amax": torch.tensor(4.0),
    }
    checkpoint = save({**weights, **extra})
    assert set(checkpoint.trained_ranges) == {"conv1.input", "conv1.weight", "fc.input"}
    assert float(checkpoint.trained_ranges["conv1.input"].amax) == 2.5
    assert checkpoint.trained_ranges["conv1.weight"].amax.shape == (64, 1, 1, 1)
    assert_gives_the_logits_of(small, checkpoint)


def test_extremes_of_torch_ao(small: ResNet, weights: State, save: Save) -> None:
    observer = "layer1.0.relu.activation_post_process"
    extra = {
        f"{observer}.fake_quant_enabled": torch.tensor([1]),
        f"{observer}.scale": torch.tensor([0.1]),
        f"{observer}.activation_post_process.min_val": torch.tensor(-3.0),
        f"{observer}.activation_post_process.max_val": torch.tensor(2.0),
    }
    checkpoint = save({**weights, **extra})
    assert {
        key: (float(kept.low), float(kept.high)) for key, kept in checkpoint.trained_ranges.items()
    } == {"layer1.0.relu.output": (-3.0, 2.0)}
    assert_gives_the_logits_of(small, checkpoint)
