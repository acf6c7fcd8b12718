"""VGG of any widths: where the pools are, with norms or without, and the head as it is saved."""

from pathlib import Path

import pytest
import torch
import torchvision.models as models
from torch import nn
from torchvision.models.vgg import make_layers

from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold

COLUMNS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class Small(nn.Module):
    """torchvision's layers at a tenth of the width, with a head for one pixel or for 7x7."""

    def __init__(self, depth: int, *, norm: bool, side: int, head: str) -> None:
        super().__init__()
        plan: list[int | str] = []
        for width, count in zip((6, 8, 10, 12, 12), COLUMNS[depth], strict=True):
            plan += [*[width] * count, "M"]
        self.features = make_layers(plan, batch_norm=norm)
        self.classifier: nn.Module = nn.Linear(12, 7)
        if head == "three":
            layers: list[nn.Module] = [nn.Linear(12 * side**2, 9), nn.ReLU(), nn.Dropout()]
            layers += [nn.Linear(9, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 7)]
            self.classifier = nn.Sequential(*layers)
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), self.side)
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("depth", "side", "head"), [(11, 1, "one"), (16, 1, "three"), (13, 2, "three")]
)
def test_any_width_is_rebuilt(depth: int, side: int, head: str, norm: bool, tmp_path: Path) -> None:
    module = Small(depth, norm=norm, side=side, head=head)
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 32 * side)
    assert architecture.family == "vgg" and architecture.input_size_px == 32 * side
    assert len(fold.folded) == (depth - 3 if norm else 0) and fold.left == 0


@pytest.mark.parametrize("depth", COLUMNS)
@pytest.mark.parametrize("norm", [False, True])
def test_torchvisions_are_recognised_by_their_shapes(depth: int, norm: bool) -> None:
    name = f"vgg{depth}{'_bn' if norm else ''}"
    with torch.device("meta"):
        module = models.get_model(name, num_classes=7, init_weights=False)
    found = fit_of(module)
    assert (found.network.name, found.network.classes) == (name, 7)
    assert found.network.input_size_px == 224
    without_names = fit_of(module, keep=False)
    assert (without_names.network.name, without_names.matched_by) == (name, "structure")


def test_linear_layers_saved_as_convolutions(tmp_path: Path) -> None:
    """timm's `pre_logits`: the same numbers as 7x7 and 1x1 convolutions."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        found = fit_of(timm.create_model("vgg16_bn", num_classes=7))
    assert (found.network.name, found.network.classes) == ("vgg16_bn", 7)


@pytest.mark.slow
def test_timms_function(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("vgg11_bn", num_classes=7)
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 224)
    assert architecture.name == "vgg11_bn" and (len(fold.folded), fold.left) == (8, 0)


def test_without_a_head_it_is_made_for_224_pixels() -> None:
    with torch.device("meta"):
        module = models.vgg16(init_weights=False)
    module.classifier = nn.Sequential()
    found = fit_of(module)
    assert (found.network.name, found.network.input_size_px) == ("vgg16", 224)
    assert found.network.features == 512
