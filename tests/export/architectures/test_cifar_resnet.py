"""ResNets for small images, with and without weights on the shortcut."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import assert_same_function, fit_of, rebuilt


class Shortcut(nn.Module):
    """Option A as the CIFAR ResNets in circulation write it."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))


class Small(nn.Module):
    """An independent CIFAR ResNet; `option` is A or B, `names` the shortcut's and the head's."""

    def __init__(self, n: int, option: str, widths: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layers = len(widths)
        inputs = widths[0]
        for stage, width in enumerate(widths):
            stride, out = (2 if stage else 1), width * (4 if bottleneck else 1)
            blocks: list[nn.Module] = []
            for _ in range(n):
                shortcut: nn.Module | None = None
                if inputs != out:
                    projection = nn.Conv2d(inputs, out, 1, stride, bias=False)
                    shortcut = nn.Sequential(projection, nn.BatchNorm2d(out))
                    if option == "A":
                        shortcut = Shortcut(width)
                block = Bottleneck if bottleneck else BasicBlock
                blocks.append(block(inputs, width, stride, shortcut))
                inputs, stride = out, 1
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(self.layers):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@pytest.mark.parametrize(
    ("n", "option", "widths", "bottleneck", "name"),
    [
        (3, "A", (16, 32, 64), False, "cifar_resnet20"),
        (9, "A", (16, 32, 64), False, "cifar_resnet56"),
        (3, "B", (16, 32, 64), False, "cifar_resnet20"),
        (2, "B", (16, 32, 64), True, "cifar_resnet20"),
        (2, "B", (64, 128, 256, 512), False, "resnet18_32px"),
        (1, "A", (8, 16), False, "cifar_resnet(basic 1-1, 8-16 wide)"),
    ],
)
def test_cifar_resnets(
    n: int, option: str, widths: tuple[int, ...], bottleneck: bool, name: str, tmp_path: Path
) -> None:
    module = randomize_batch_norms(Small(n, option, widths, bottleneck))
    architecture, other = rebuilt(module, tmp_path)
    assert (architecture.name, architecture.classes) == (name, 10)
    assert (architecture.input_size_px, architecture.preprocess) == (32, "cifar")
    padded = any("zero channels around" in sentence for sentence in architecture.assumptions)
    assert padded == (option == "A")
    assert_same_function(module, other, size_px=32)


@pytest.mark.parametrize("option", ["A", "B"])
def test_order_alone_tells_it(option: str) -> None:
    found = fit_of(Small(3, option, (16, 32, 64), False), keep=False)
    assert (found.network.name, found.family.name) == ("cifar_resnet20", "cifar_resnet")
    assert found.matched_by == "structure"
