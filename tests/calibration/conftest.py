"""Float graphs of the four families as resdeploy exports them, small inputs, random weights."""

from collections.abc import Callable
from functools import cache

import onnx
import pytest
import torch
import torchvision

from resdeploy.export.fold_batchnorm import fold_batchnorm
from resdeploy.export.simplify import simplify
from resdeploy.export.trace import trace


class _Block(torch.nn.Module):
    """A CIFAR basic block whose shortcut pads channels ("option A")."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == planes else 2
        self.padding = (planes - inputs) // 2
        self.conv1 = torch.nn.Conv2d(inputs, planes, 3, self.stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(planes)
        self.conv2 = torch.nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = x[:, :, :: self.stride, :: self.stride]
            x = torch.nn.functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(out + x)


def _cifar_resnet8() -> torch.nn.Module:
    nn = torch.nn
    blocks = (_Block(16, 16), _Block(16, 32), _Block(32, 64))
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _with_lively_batch_norms(module: torch.nn.Module) -> torch.nn.Module:
    """Statistics as training leaves them, not the 0 and 1 of a fresh network."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean = torch.empty(part.num_features).normal_(0, 0.1)
            part.running_var = torch.empty(part.num_features).uniform_(0.5, 1.5)
            torch.nn.init.uniform_(part.weight, 0.5, 1.2)
            torch.nn.init.normal_(part.bias, 0, 0.1)
    return module.eval()


def _module(name: str) -> torch.nn.Module:
    if name == "cifar_resnet8":
        return _cifar_resnet8()
    module: torch.nn.Module = getattr(torchvision.models, name)(num_classes=10)
    return module


@cache
def _graph(name: str) -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _with_lively_batch_norms(_module(name))
    folded = fold_batchnorm(trace(module, input_size_px=32 if "cifar" in name else 64))
    serialized: bytes = simplify(folded.model).SerializeToString()
    return serialized


@pytest.fixture(scope="session")
def float_graph() -> Callable[[str], onnx.ModelProto]:
    """Name → a fresh copy of the exported float graph (built once a session)."""
    return lambda name: onnx.load_from_string(_graph(name))
