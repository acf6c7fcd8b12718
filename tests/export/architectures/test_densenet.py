"""DenseNets for small images: by torchvision's names, by order, and what differs by author."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import DenseNet

from resdeploy.export.architectures.densenet import FAMILY
from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.units import units_of
from resdeploy.export.matching.fitting import fits
from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold

GROWTH = 4


def torchvisions(*, pool: bool = True, bottleneck: int = 4) -> DenseNet:
    """torchvision's class with the stem that networks for small images have."""
    module = DenseNet(GROWTH, (2, 3), 8, bottleneck, num_classes=5)
    module.features.conv0 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    if not pool:
        module.features.pool0 = nn.Identity()
    return module


class Plain(nn.Module):
    """Dense layers of one convolution, no norm behind the stem, whatever the names."""

    def __init__(self, *, before: bool, relu: bool) -> None:
        super().__init__()
        self.before, self.relu = before, relu
        self.start = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.a1, self.b1 = nn.BatchNorm2d(6), nn.Conv2d(6, GROWTH, 3, padding=1, bias=False)
        self.a2, self.b2 = nn.BatchNorm2d(10), nn.Conv2d(10, GROWTH, 3, padding=1, bias=False)
        self.a3, self.b3 = nn.BatchNorm2d(14), nn.Conv2d(14, 7, 1, bias=False)
        self.a4, self.b4 = nn.BatchNorm2d(7), nn.Conv2d(7, GROWTH, 3, padding=1, bias=False)
        self.a5, self.b5 = nn.BatchNorm2d(11), nn.Linear(11, 5)

    def _dense(self, x: torch.Tensor, norm: nn.Module, conv: nn.Module) -> torch.Tensor:
        y = conv(F.relu(norm(x)))
        return torch.cat([y, x] if self.before else [x, y], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._dense(self._dense(self.start(x), self.a1, self.b1), self.a2, self.b2)
        x = self.a3(x)
        x = F.avg_pool2d(self.b3(F.relu(x) if self.relu else x), 2)
        x = F.relu(self.a5(self._dense(x, self.a4, self.b4)))
        logits: torch.Tensor = self.b5(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize("pool", [True, False])
def test_torchvisions_class_with_a_small_stem(tmp_path: Path, pool: bool) -> None:
    assume = {} if pool else {"pool": "no"}
    module = torchvisions(pool=pool)
    found, _ = same_before_and_after_the_fold(module, tmp_path, 32, assume)
    assert (found.family, found.name) == ("densenet", "densenet_bc13_k4")
    assert found.matched_by == "names"
    assert found.classes == 5 and found.input_size_px == 32


@pytest.mark.parametrize(("before", "relu"), [(False, True), (True, True), (False, False)])
def test_authors_join_and_activate_differently(tmp_path: Path, before: bool, relu: bool) -> None:
    module = Plain(before=before, relu=relu)
    assume = {"joins": "before" if before else "after", "transition_relu": "yes" if relu else "no"}
    found, _ = same_before_and_after_the_fold(module, tmp_path, 32, assume)
    assert (found.name, found.matched_by) == ("densenet6_k4", "structure")


def test_in_any_order_of_the_names_and_without_them() -> None:
    with torch.device("meta"):
        module = torchvisions()
    assert fit_of(module, keep=False).network.name == "densenet_bc13_k4"
    state = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert [found.matched_by for found in fits(dict(sorted(state.items())))] == ["names"]


def test_whose_networks_do_what() -> None:
    kuangliu = {"dense1.0.bn1.weight": (8,), "trans1.conv.weight": (8, 16, 1, 1)}
    assert FAMILY.habits(kuangliu).settings == {"joins": "before"}
    other = {"features.transition_layer_0.down_sample.1.weight": (8, 16, 1, 1)}
    assert FAMILY.habits(other).settings == {"transition_relu": "no"}
    assert not FAMILY.habits({"dense1.0.bn1.weight": (8,), "trans1.conv1.weight": ()}).settings


def test_names_of_the_paper() -> None:
    head = (Linear("", 342, 10, True),)
    for name, features in (("densenet40_k12", 448), ("densenet_bc100_k12", 342)):
        found = FAMILY.named(name, head)
        assert found is not None and (found.name, found.features) == (name, features)
    for name in ("densenet121", "densenet41_k12", "densenet_bc4_k12"):
        assert FAMILY.named(name, head) is None


def test_other_layers_are_none() -> None:
    shapes = OrderedDict({"a.weight": (8, 3, 3, 3), "b.weight": (8, 8, 3, 3), "c.weight": (5, 8)})
    assert list(FAMILY.by_position(units_of(shapes))) == []
    shapes = OrderedDict({"a.weight": (8, 3, 7, 7), "b.weight": (8, 8, 3, 3), "c.weight": (5, 8)})
    assert list(FAMILY.by_position(units_of(shapes))) == []
