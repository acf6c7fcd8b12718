"""Float graphs of the four families with random weights, and what one quantization is given."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck

from resdeploy.calibration.job import Job, QuantizeOptions
from resdeploy.calibration.observe.images import CalibrationImages
from resdeploy.calibration.ranges.ranges import RangesKey
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.progress import silent
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet


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


_MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "cifar_resnet8": _cifar_resnet8,
    "resnet18": lambda: NarrowResNet(BasicBlock, [2, 2, 2, 2]),
    "resnext50": lambda: NarrowResNet(Bottleneck, [3, 4, 6, 3], groups=8, width_per_group=16),
    "mobilenet_v2": lambda: MobileNetV2(num_classes=10),
}


@cache
def _graph(name: str) -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = randomize_batch_norms(_MODULES[name]())
    folded = fold_batchnorm(trace(module, input_size_px=32 if "cifar" in name else 64))
    serialized: bytes = simplify(folded.model).SerializeToString()
    return serialized


@pytest.fixture(scope="session")
def float_graph() -> Callable[[str], onnx.ModelProto]:
    """Name → a fresh copy of the exported float graph (built once a session)."""
    return lambda name: onnx.load_from_string(_graph(name))


@pytest.fixture
def job(flower_bundle: Path, image_folder: Path) -> Job:
    """The tiny bundle, judged by twelve of the images."""
    bundle = read_bundle(flower_bundle)
    paths = tuple(sorted(image_folder.iterdir()))
    images = CalibrationImages(paths[:12], ("",) * 12, ())
    return Job(
        bundle=bundle,
        graph=bundle.graph("fp32"),
        key=RangesKey("g", "i", "p", "mse", "0"),
        calibrate=images,
        held=images,
        data=None,
        max_drop=1.0,
        trained=None,
        options=QuantizeOptions("mse", "auto", repair=True, force=False, weights="int8", seed=3),
        progress=silent,
    )
