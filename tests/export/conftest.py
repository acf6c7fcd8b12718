"""Small networks of each family, with the batch-norm statistics of a trained one."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck

from resdeploy.deploy.arrays import Float32s
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet

Run = Callable[[onnx.ModelProto, Float32s], Float32s]


class OptionABlock(nn.Module):
    """As the CIFAR ResNet checkpoints in circulation were trained: slice, pad, add."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.widened = after - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.widened:
            half = self.widened // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half), "constant", 0)
        return F.relu(y + x)


class OptionAResNet(nn.Module):
    """Three stages, functional pooling, `x.view(x.size(0), -1)`: the worst habits to trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(OptionABlock(8, 8, 1))
        self.layer2 = nn.Sequential(OptionABlock(8, 16, 2))
        self.layer3 = nn.Sequential(OptionABlock(16, 32, 2))
        self.linear = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        x = F.avg_pool2d(x, x.size()[3])
        logits: torch.Tensor = self.linear(x.view(x.size(0), -1))
        return logits


class PreactBlock(nn.Module):
    """Batch norm and activation before each convolution, nothing behind the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        total: torch.Tensor = self.conv2(F.relu(self.bn2(y))) + x
        return total


class PreactResNet(nn.Module):
    """A network of which only the norms inside blocks fold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.layer1 = nn.Sequential(PreactBlock(16), PreactBlock(16))
        self.bn = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 7, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.layer1(self.conv1(x))))
        logits: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _headless() -> nn.Module:
    network: nn.Module = NarrowResNet(BasicBlock, [1, 1, 1, 1])
    network.fc = nn.Identity()
    return network


_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=7),
    "resnext": lambda: NarrowResNet(
        Bottleneck, [1, 1, 1, 1], classes=7, groups=8, width_per_group=16
    ),
    "mobilenet_v2": lambda: MobileNetV2(
        num_classes=7, inverted_residual_setting=[[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 2, 2]]
    ),
    "cifar": OptionAResNet,
    "headless": _headless,
    "preact": PreactResNet,
}


@pytest.fixture(scope="session")
def network() -> Callable[[str], nn.Module]:
    """Build a network by name: evaluation mode, reproducible weights, lived-in statistics."""

    def build(name: str) -> nn.Module:
        torch.manual_seed(0)
        return randomize_batch_norms(_NETWORKS[name]())

    return build


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a graph with one input in ONNX Runtime on the CPU; its first output."""

    def first_output(model: onnx.ModelProto, images: Float32s) -> Float32s:
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {model.graph.input[0].name: images})[0])

    return first_output
