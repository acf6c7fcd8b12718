"""Pre-activation ResNets: which layer stands where, what shortcuts read, what the fold leaves."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.export.architectures.preact.resnet import FAMILY
from resdeploy.export.matching.fitting import fits
from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold

WIDTH = 8


class Block(nn.Module):
    """A compact restatement of what kuangliu's and bearpaw's blocks have in common."""

    def __init__(self, inputs: int, out: int, stride: int, kernels: str, shortcut: str) -> None:
        super().__init__()
        inside = out // 4 if len(kernels) == 3 else out
        widths = [inputs, *[inside] * (len(kernels) - 1), out]
        strided = len(kernels) - 2
        for n, kernel in enumerate(map(int, kernels)):
            step = stride if n == strided else 1
            conv = nn.Conv2d(widths[n], widths[n + 1], kernel, step, kernel // 2, bias=False)
            self.add_module(f"bn{n + 1}", nn.BatchNorm2d(widths[n]))
            self.add_module(f"conv{n + 1}", conv)
        self.convs, self.name = len(kernels), shortcut if inputs != out else ""
        self.bare = False
        if self.name:
            projection = nn.Conv2d(inputs, out, 1, stride, bias=False)
            self.add_module(shortcut, nn.Sequential(projection))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = short = x
        for n in range(1, self.convs + 1):
            y = F.relu(self.get_submodule(f"bn{n}")(y))
            short = y if n == 1 and self.bare else short
            if n == 1 and self.name:
                short = self.get_submodule(self.name)(y if self.name == "shortcut" else x)
            y = self.get_submodule(f"conv{n}")(y)
        return y + short


class Small(nn.Module):
    def __init__(self, kernels: str, shortcut: str, *, input_norm: bool, last_norm: bool) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(3) if input_norm else None
        self.conv1 = nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
        widths = [WIDTH, WIDTH if len(kernels) == 2 else 4 * WIDTH, 8 * WIDTH]
        self.layer1 = nn.Sequential(
            Block(widths[0], widths[1], 1, kernels, shortcut),
            Block(widths[1], widths[1], 1, kernels, shortcut),
        )
        self.layer2 = nn.Sequential(
            Block(widths[1], widths[2], 2, kernels, shortcut),
            Block(widths[2], widths[2], 1, kernels, shortcut),
        )
        self.bn = nn.BatchNorm2d(widths[2]) if last_norm else None
        self.fc = nn.Linear(widths[2], 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.input_norm is None else self.input_norm(x)
        x = self.layer2(self.layer1(self.conv1(x)))
        x = x if self.bn is None else F.relu(self.bn(x))
        logits: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


READS = {"shortcut": "the-activated-input", "downsample": "the-input"}


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["33", "131"], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("shortcut", READS)
@pytest.mark.parametrize("last_norm", [False, True])
def test_the_function_is_the_authors(
    kernels: str, shortcut: str, last_norm: bool, tmp_path: Path
) -> None:
    module = Small(kernels, shortcut, input_norm=False, last_norm=last_norm)
    assume = {"shortcut_reads": READS[shortcut]}
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 16, assume)
    assert architecture.family == "preact_resnet" and architecture.classes == 5
    # inside a block every norm folds; of those that lead one, what reads a sum stays
    assert len(fold.folded) >= 4 * (len(kernels) - 1)
    assert set(fold.skipped.values()) <= {
        "the convolution's output has other consumers",
        "leads a block: the sum it reads goes on along the shortcut without it",
        "leads a block: part of the sum it reads has other consumers",
        "leads a block: part of the sum it reads comes from Add",
    }
    assert fold.left > 0


def test_a_bare_shortcut_may_hand_on_what_is_activated(tmp_path: Path) -> None:
    """hysts' first block of a stage, where it has no convolution on the shortcut."""
    module = Small("33", "shortcut", input_norm=False, last_norm=True)
    first = module.layer1[0]
    assert isinstance(first, Block)
    first.bare = True
    assume = {"first_shortcut": "the-activated-input"}
    same_before_and_after_the_fold(module, tmp_path, 16, assume)


@pytest.mark.slow
def test_a_batch_norm_on_the_input_is_recognised(tmp_path: Path) -> None:
    module = Small("33", "shortcut", input_norm=True, last_norm=True)
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 16)
    assert any("3 channels stands on the input" in said for said in architecture.evidence)
    assert any(said.startswith("follows an input") for said in fold.skipped.values())


@pytest.mark.parametrize("kernels", ["33", "131"], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("input_norm", [False, True])
def test_order_alone_tells_it(kernels: str, input_norm: bool) -> None:
    module = Small(kernels, "downsample", input_norm=input_norm, last_norm=True)
    by_names, by_order = fit_of(module), fit_of(module, keep=False)
    assert (by_names.matched_by, by_order.matched_by) == ("names", "structure")
    assert by_order.network.name == by_names.network.name
    assert by_order.network.expected == by_names.network.expected


def xternalz(name: str) -> str:
    name = re.sub(r"^layer(\d)\.", r"block\1.layer.", name)
    return re.sub(r"^bn\.", "bn1.", name.replace("shortcut", "convShortcut"))


def test_a_stage_that_trades_never_runs_is_left_out() -> None:
    network = FAMILY.named("wide_resnet28_10", ())
    assert network is not None
    shapes = {xternalz(name): shape for name, shape in network.expected.items()}
    copies = {f"sub_{name}": shape for name, shape in shapes.items() if name.startswith("block1.")}
    (found,) = fits(shapes | copies)
    assert found.network.name == "wide_resnet28_10" and len(found.ignored) == len(copies)


@pytest.mark.slow
def test_timms_resnetv2(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("resnetv2_18", num_classes=5)
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 64)
    assert architecture.name == "preact_resnet18" and architecture.input_size_px == 224
    assert (len(fold.folded), fold.left) == (8, 9)


@pytest.mark.parametrize("name", ["preact_resnet18", "preact_resnet34", "wide_resnet28_10"])
def test_a_network_may_be_asked_for_by_name(name: str) -> None:
    network = FAMILY.named(name, ())
    assert network is not None and network.name == name and network.features >= 512
    assert FAMILY.named("wide_resnet27_10", ()) is None
