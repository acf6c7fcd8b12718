"""Small networks of each family, with the batch-norm statistics of a trained one."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

Run = Callable[[onnx.ModelProto, NDArray[np.float32]], NDArray[np.float32]]


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


def _headless() -> nn.Module:
    network: nn.Module = ResNet(BasicBlock, [1, 1, 1, 1])
    network.fc = nn.Identity()
    return network


_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=7),
    "resnext": lambda: ResNet(
        Bottleneck, [1, 1, 1, 1], num_classes=7, groups=8, width_per_group=14
    ),
    "mobilenet_v2": lambda: MobileNetV2(
        num_classes=7, inverted_residual_setting=[[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 2, 2]]
    ),
    "cifar": OptionAResNet,
    "headless": _headless,
}


@pytest.fixture(scope="session")
def network() -> Callable[[str], nn.Module]:
    """Build a network by name: evaluation mode, reproducible weights, lived-in statistics."""

    def build(name: str) -> nn.Module:
        torch.manual_seed(0)
        module = _NETWORKS[name]()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None and part.running_var is not None
                nn.init.normal_(part.running_mean, std=0.2)
                nn.init.uniform_(part.running_var, 0.3, 2.0)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.2)
        return module.eval()

    return build


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a graph with one input in ONNX Runtime on the CPU; its first output."""

    def first_output(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {model.graph.input[0].name: images})[0])

    return first_output
