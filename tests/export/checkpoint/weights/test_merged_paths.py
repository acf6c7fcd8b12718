"""The three forms of a ResNeXt block: both forms of separate paths are run beside the grouped."""

from pathlib import Path

import pytest
import torch
from torch import nn

from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint

PATHS, WIDTH = 4, 2


class Block(nn.Module):
    """Figure 3 (a) summed, with a norm after the sum or one in each path, or (b) concatenated."""

    def __init__(self, inputs: int, out: int, stride: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.paths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
                nn.Conv2d(WIDTH, WIDTH, 3, stride, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
                *([] if form == "concatenated" else [nn.Conv2d(WIDTH, out, 1, bias=False)]),
                *([nn.BatchNorm2d(out)] if form == "norms in the paths" else []),
            )
            for _ in range(PATHS)
        )  # fmt: skip
        self.end = nn.Sequential()
        if form == "concatenated":
            self.end.append(nn.Conv2d(PATHS * WIDTH, out, 1, bias=False))
        if form != "norms in the paths":
            self.end.append(nn.BatchNorm2d(out))
        self.skip = nn.Sequential()
        if inputs != out:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Written as the figure has it."""
        made = [path(x) for path in self.paths]
        y = torch.cat(made, 1) if self.form == "concatenated" else torch.stack(made).sum(0)
        return torch.relu(self.end(y) + self.skip(x))


class Net(nn.Module):
    """A stem, two stages of two blocks, a head, under names of its own."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8))
        self.body = nn.Sequential(
            Block(8, 16, 1, form), Block(16, 16, 1, form),
            Block(16, 32, 2, form), Block(32, 32, 1, form),
        )  # fmt: skip
        self.answer = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 5)."""
        x = nn.functional.max_pool2d(torch.relu(self.entry(x)), 3, 2, 1)
        logits: torch.Tensor = self.answer(self.body(x).mean((2, 3)))
        return logits


@pytest.mark.parametrize("form", ["summed", "norms in the paths", "concatenated"])
def test_separate_paths_are_the_grouped_convolution(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Net(form).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
    torch.save(network.state_dict(), tmp_path / "paths.pth")
    checkpoint = read_checkpoint(tmp_path / "paths.pth")
    assert f"{PATHS} separate paths of each block are one grouped convolution" in checkpoint.notes
    architecture = identify(checkpoint)
    assert (architecture.family, architecture.matched_by) == ("resnet", "structure")
    grouped = build_module(checkpoint, architecture)
    (convs,) = {
        part.groups
        for part in grouped.modules()
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)
    }
    assert convs == PATHS
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grouped(x), network(x), rtol=0, atol=1e-4)
