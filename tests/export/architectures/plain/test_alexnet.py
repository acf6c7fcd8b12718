"""AlexNet: torchvision's, the tutorial's at half the width, and one for 32 pixels."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold


class Narrow(nn.Module):
    """A compact restatement of the tutorial's (6x6 pixels left) and bearpaw's (one)."""

    def __init__(self, widths: tuple[int, ...], *, small: bool) -> None:
        super().__init__()
        a, b, c, d, e = widths
        pool = nn.MaxPool2d(2, 2) if small else nn.MaxPool2d(3, 2)
        self.features = nn.Sequential(
            *(nn.Conv2d(3, a, 11, 4, 5 if small else 2), nn.ReLU(), pool),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), pool),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), pool),
        )
        self.classifier: nn.Module = nn.Linear(e, 7)
        if not small:
            layers: list[nn.Module] = [nn.Dropout(), nn.Linear(36 * e, 9), nn.ReLU()]
            layers += [nn.Dropout(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 7)]
            self.classifier = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


@pytest.mark.parametrize("small", [False, True])
def test_any_width_is_rebuilt(small: bool, tmp_path: Path) -> None:
    module = Narrow((6, 8, 10, 10, 6), small=small)
    size_px = 32 if small else 224
    architecture, _ = same_before_and_after_the_fold(module, tmp_path, size_px)
    assert architecture.name == "alexnet(6-8-10-10-6)"
    assert architecture.input_size_px == size_px
    assert architecture.preprocess == ("cifar" if small else "half")


def test_torchvisions_is_recognised_by_names_and_by_order() -> None:
    with torch.device("meta"):
        module = alexnet(num_classes=7)
    for keep, matched_by in ((True, "names"), (False, "structure")):
        found = fit_of(module, keep=keep)
        assert (found.network.name, found.network.classes) == ("alexnet", 7)
        assert (found.matched_by, found.network.preprocess) == (matched_by, "imagenet")
