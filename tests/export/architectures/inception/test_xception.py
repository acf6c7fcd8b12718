"""Xception as tstandley and weiaicunzai wrote it, narrow and with fewer blocks."""

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.export.architectures.inception.xception import FAMILY
from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold


class Separable(nn.Module):
    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, out, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pointwise(self.conv1(x))
        return y


class Block(nn.Module):
    """A compact restatement; `leaky`: the first ReLU reaches the shortcut, as in place it does."""

    def __init__(self, widths: list[int], stride: int, *, relu: bool, leaky: bool) -> None:
        super().__init__()
        self.skip: nn.Module | None = None
        if stride:
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        at = 0
        for number, (inputs, out) in enumerate(pairwise(widths)):
            if relu or number:
                layers[str(at)], at = nn.ReLU(), at + 1
            layers[str(at)], layers[str(at + 1)] = Separable(inputs, out), nn.BatchNorm2d(out)
            at += 2
        if stride:
            layers[str(at)] = nn.MaxPool2d(3, stride, 1)
        self.rep = nn.Sequential(layers)
        self.leaky = leaky

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.rep(x)
        short = F.relu(x) if self.leaky else x
        total: torch.Tensor = y + (short if self.skip is None else self.skipbn(self.skip(short)))
        return total


class Small(nn.Module):
    def __init__(self, *, small: bool) -> None:
        super().__init__()
        stride, self.padding = (1, 1) if small else (2, 0)
        self.conv1 = nn.Conv2d(3, 6, 3, stride, self.padding, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, 1, self.padding, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.block1 = Block([8, 10, 10], 2, relu=False, leaky=False)
        self.block2 = Block([10, 12, 12], 2, relu=True, leaky=small)
        self.block3 = Block([12, 14, 14], 1 if small else 2, relu=True, leaky=small)
        self.block4 = Block([14, 14, 14, 14], 0, relu=True, leaky=small)
        self.block5 = Block([14, 14, 16], 2, relu=True, leaky=False)
        self.conv3, self.bn3 = Separable(16, 18), nn.BatchNorm2d(18)
        self.conv4, self.bn4 = Separable(18, 20), nn.BatchNorm2d(20)
        self.fc = nn.Linear(20, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        for number in range(1, 6):
            x = self.get_submodule(f"block{number}")(x)
        x = F.relu(self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x))))))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


WEIAICUNZAI = {
    "stem_stride": "1",
    "stem_padding": "1",
    "strides": "2,2,1,2",
    "shortcut_reads": "the-activated-input",
}


@pytest.mark.parametrize("small", [False, True], ids=["tstandley", "weiaicunzai"])
def test_the_function_is_the_authors(small: bool, tmp_path: Path) -> None:
    assume = WEIAICUNZAI if small else {}
    architecture, fold = same_before_and_after_the_fold(Small(small=small), tmp_path, 64, assume)
    assert architecture.family == "xception" and architecture.preprocess == "half"
    assert fold.left == 0 and len(fold.folded) == 19


def test_order_alone_tells_it() -> None:
    module = Small(small=False)
    assert fit_of(module, keep=False).matched_by == "structure"


def test_a_shortcut_listed_behind_its_block_is_found() -> None:
    module = Small(small=False)
    for number in (1, 2, 3, 5):
        block = module.get_submodule(f"block{number}")
        for name in ("skip", "skipbn"):
            part = block.get_submodule(name)
            delattr(block, name)
            block.add_module(name, part)
    found = fit_of(module, keep=False)
    assert found.network.expected == fit_of(Small(small=False)).network.expected


def test_weiaicunzai_s_habits() -> None:
    habits = FAMILY.habits({"entry_flow.conv3_residual.0.depthwise.weight": ()})
    assert habits.settings == WEIAICUNZAI and habits.input_size_px == 32


@pytest.mark.slow
def test_timms(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("legacy_xception", num_classes=7)
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 96)
    assert architecture.name == "xception" and (len(fold.folded), fold.left) == (40, 0)
