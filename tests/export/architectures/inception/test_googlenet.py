"""GoogLeNet in its dialects: with batch norm and without, a true 5x5 or what stands for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import GoogLeNet

from resdeploy.export.architectures.inception.googlenet import FAMILY
from resdeploy.export.architectures.inception.googlenet_layout import MODULES
from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold

# Narrow ones of the paper's shape: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
NARROW = (4, 5, 6, 2, 4, 2)


def torchvisions(*, transform_input: bool, auxiliary: bool = False) -> GoogLeNet:
    return GoogLeNet(7, aux_logits=auxiliary, transform_input=transform_input, init_weights=False)


def test_auxiliary_heads_are_dropped_and_said() -> None:
    with torch.device("meta"):
        found = fit_of(torchvisions(transform_input=True, auxiliary=True), under="module.")
    assert found.network.name == "googlenet" and found.prefix == "module."
    assert {name.split(".")[1] for name in found.ignored} == {"aux1", "aux2"}
    assert len(found.ignored) == 18


@dataclass(frozen=True)
class Dialect:
    """How a compact restatement differs from torchvision's."""

    normed: bool
    third: Sequence[int]
    stem: Sequence[int]
    middle_eps: bool = False


def conv(dialect: Dialect, inputs: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
    layers = nn.Sequential()
    shape = (inputs, out, kernel, stride, kernel // 2)
    layers.add_module("conv", nn.Conv2d(*shape, bias=not dialect.normed))
    if dialect.normed:
        layers.add_module("bn", nn.BatchNorm2d(out, eps=1e-3))
    layers.add_module("relu", nn.ReLU())
    return layers


class Inception(nn.Module):
    def __init__(self, dialect: Dialect, inputs: int) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pool = NARROW
        self.branch1 = conv(dialect, inputs, one, 1)
        self.branch2 = nn.Sequential(
            conv(dialect, inputs, reduce3, 1), conv(dialect, reduce3, three, 3)
        )
        steps, width = [conv(dialect, inputs, reduce5, 1)], reduce5
        for kernel in dialect.third:
            steps.append(conv(dialect, width, five, kernel))
            width = five
        if dialect.middle_eps:
            middle = steps[1].get_submodule("bn")
            assert isinstance(middle, nn.BatchNorm2d)
            middle.eps = float(five)
        self.branch3 = nn.Sequential(*steps)
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(dialect, inputs, pool, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class Small(nn.Module):
    """The tutorial's network (7x7 stem, pools that round up) or one for 32 pixels."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        width = 3
        for number, kernel in enumerate(dialect.stem, start=1):
            stride = 2 if kernel == 7 else 1
            self.add_module(f"conv{number}", conv(dialect, width, 8, kernel, stride))
            width = 8
        for name in MODULES:
            self.add_module(f"inception{name}", Inception(dialect, width))
            width = sum(NARROW[i] for i in (0, 2, 4, 5))
        self.fc = nn.Linear(width, 7)
        self.dialect = dialect

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        large = self.dialect.stem[0] == 7
        return F.max_pool2d(x, 3, 2, 0 if large else 1, ceil_mode=large)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.dialect.stem
        for number in range(1, len(stem) + 1):
            x = self.get_submodule(f"conv{number}")(x)
            x = self.pool(x) if number == 1 and stem[0] == 7 else x
        x = self.pool(x) if len(stem) > 1 else x
        for name in MODULES:
            x = self.pool(x) if name in ("4a", "5a") else x
            x = self.get_submodule(f"inception{name}")(x)
        logits: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


DIALECTS = {
    "tutorial": (Dialect(False, (5,), (7, 1, 3)), {}),
    "kuangliu": (Dialect(True, (3, 3), (3,)), {}),
    "weiaicunzai": (Dialect(True, (3, 3), (3, 3, 3), middle_eps=True), {"middle_eps": "width"}),
    "one 3x3": (Dialect(True, (3,), (3,)), {}),
}


@pytest.mark.parametrize(
    "name",
    ["tutorial", *(pytest.param(n, marks=pytest.mark.slow) for n in DIALECTS if n != "tutorial")],
)
def test_dialects_of_any_width(name: str, tmp_path: Path) -> None:
    dialect, assume = DIALECTS[name]
    size_px = 64 if dialect.stem[0] == 7 else 16
    architecture, fold = same_before_and_after_the_fold(Small(dialect), tmp_path, size_px, assume)
    assert architecture.family == "googlenet" and fold.left == 0
    assert architecture.preprocess == ("half" if not dialect.normed else "cifar")


@pytest.mark.parametrize("name", DIALECTS)
def test_order_alone_tells_it(name: str) -> None:
    module = Small(DIALECTS[name][0])
    found = fit_of(module, keep=False)
    assert found.matched_by == "structure"
    assert found.network.expected == fit_of(module).network.expected


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("pre_layers.0.weight", "conv1.conv.weight"),
        ("prelayer.7.weight", "conv3.bn.weight"),
        ("a3.b1.1.bias", "inception3a.branch1.bn.bias"),
        ("e4.b2.3.weight", "inception4e.branch2.1.conv.weight"),
        ("b5.b3.7.weight", "inception5b.branch3.2.bn.weight"),
        ("b5.b4.1.weight", "inception5b.branch4.1.conv.weight"),
        ("b5.b4.2.weight", "inception5b.branch4.1.bn.weight"),
        ("linear.weight", "fc.weight"),
    ],
)
def test_kuangliu_s_and_weiaicunzai_s_names(name: str, ours: str) -> None:
    assert FAMILY.translate({name: ()}) == {ours: name}


def test_weiaicunzai_gave_one_norm_its_width_as_eps() -> None:
    habits = FAMILY.habits({"prelayer.0.weight": (), "a3.b1.0.weight": ()})
    assert habits.settings == {"bn_eps": "1e-5", "middle_eps": "width"}
    assert FAMILY.habits({"a3.b1.0.weight": ()}).settings == {"bn_eps": "1e-5"}
