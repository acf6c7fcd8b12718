"""Weights in several tensors give what torch computes with them."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torchvision.models.resnet import BasicBlock

from tests.builders import randomize_batch_norms
from tests.export.checkpoint.conftest import Save, assert_gives_the_logits_of
from tests.networks import NarrowResNet

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def network() -> nn.Module:
    torch.manual_seed(0)
    return NarrowResNet(BasicBlock, [2, 2, 2, 2], classes=3)


def test_pruning_masks_are_multiplied(save: Save) -> None:
    module = network()
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            prune.l1_unstructured(part, "weight", 0.3)
    randomize_batch_norms(module)
    checkpoint = save(module.state_dict())
    assert any(note.startswith("20 weights were stored as masks") for note in checkpoint.notes)
    assert_gives_the_logits_of(module, checkpoint, atol=1e-5)


@pytest.mark.parametrize(
    "reparametrise",
    [weight_norm, spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm],
)
def test_norms_of_weights_are_multiplied_out(reparametrise, save: Save) -> None:  # type: ignore[no-untyped-def]
    module = network()
    reparametrise(module.get_submodule("conv1"))
    reparametrise(module.get_submodule("fc"))
    randomize_batch_norms(module)
    assert_gives_the_logits_of(module, save(module.state_dict()), atol=1e-4)


class MaximaAndMeans(nn.Module):
    """fastai's AdaptiveConcatPool2d."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, 2 C, 1, 1)."""
        pools = nn.functional.adaptive_max_pool2d(x, 1), nn.functional.adaptive_avg_pool2d(x, 1)
        return torch.cat(pools, 1)


def lived_in(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    return randomize_batch_norms(module)


def test_fastais_head_is_folded(save: Save) -> None:
    body = nn.Sequential(*list(network().children())[:-2])
    head = nn.Sequential(
        MaximaAndMeans(), nn.Flatten(),
        nn.BatchNorm1d(256), nn.Dropout(0.25), nn.Linear(256, 512, bias=False), nn.ReLU(),
        nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, 3, bias=False),
    )  # fmt: skip
    module = lived_in(nn.Sequential(body, head))
    checkpoint = save({"model": module.state_dict(), "opt": {"hypers": [{"lr": 0.1}]}})
    assert "2 batch norms of the head are folded into its linear layers" in checkpoint.notes
    assert_gives_the_logits_of(module, checkpoint, atol=1e-4)


def test_a_norm_right_after_a_linear_layer_is_folded_into_it(save: Save) -> None:
    module = network()
    module.fc = nn.Sequential(
        nn.Linear(128, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3)
    )
    lived_in(module)
    assert_gives_the_logits_of(module, save(module.state_dict()), atol=1e-4)


def test_norms_among_convolutions_stay(save: Save) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    )
    checkpoint = save(module.state_dict())
    assert "1.running_mean" in checkpoint.tensors
