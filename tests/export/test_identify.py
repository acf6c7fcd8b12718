"""What is said when nothing fits, when the user names the network, or brings their own."""

import re
import sys
import time
from pathlib import Path

import pytest
import torch
import torchvision.models as models
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from resdeploy.deploy.errors import CheckpointError, InputError
from resdeploy.export.checkpoint import Checkpoint, read_checkpoint
from resdeploy.export.fitting import fit
from resdeploy.export.identify import build_module, identify


def saved(module: nn.Module, folder: Path, prefix: str = "") -> Checkpoint:
    path = folder / "model.pth"
    state = {f"{prefix}{name}": value for name, value in module.state_dict().items()}
    torch.save(state, path)
    return read_checkpoint(path)


def refusal(checkpoint: Checkpoint, arch: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        identify(checkpoint, arch=arch)
    message = str(caught.value)
    assert str(checkpoint.path) in message and "\n" not in message
    return message


def small() -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1], 7).eval()


def test_another_task_is_told_with_the_nearest_network(tmp_path: Path) -> None:
    detector = models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    message = refusal(saved(detector, tmp_path))
    assert "nearest is resnet50 with 265 in common" in message
    shown = re.findall(r"(backbone\.fpn\S+ \(.*?\)) has no place in it", message)
    assert len(shown) == 3
    assert "--arch NAME" in message and "--arch module:factory" in message


def test_a_vision_transformer_shares_nothing(tmp_path: Path) -> None:
    transformer = models.VisionTransformer(32, 16, 1, 2, 32, 64, num_classes=7)
    message = refusal(saved(transformer, tmp_path))
    assert "none of them is in resnet, mobilenet_v2, cifar_resnet: the first are" in message
    assert "class_token (1, 1, 32)" in message


def test_a_residual_network_with_more_in_it(tmp_path: Path) -> None:
    module = small()
    module.layer1[0].add_module("se", nn.Conv2d(64, 4, 1))
    message = refusal(saved(module, tmp_path, "module."))
    assert "nearest is resnet(basic 1-1-1-1)" in message
    assert "module.layer1.0.se.weight (4, 64, 1, 1) has no place in it" in message


def test_one_channel_missing_and_extra_tensors(tmp_path: Path) -> None:
    module = small()
    module.conv1 = nn.Conv2d(1, 64, 7, bias=False)
    del module.layer2[0].downsample[1]
    checkpoint = saved(module, tmp_path)
    message = refusal(checkpoint)
    assert "conv1.weight is (64, 1, 7, 7), expected (64, 3, 7, 7)" in message
    assert "layer2.0.downsample.1.weight (128,) is missing" in message
    assert message.count(" is missing") == 2 and "and 2 more" in message


def test_the_same_weight_under_two_names_is_no_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state = small().state_dict()
    torch.save({**state, "classifier.weight": state["fc.weight"]}, path)
    assert "means the same as another tensor" in refusal(read_checkpoint(path))


def test_profiling_marks_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state = small().state_dict()
    torch.save({**state, "total_ops": torch.zeros(1), "layer1.total_params": torch.ones(1)}, path)
    checkpoint = read_checkpoint(path)
    assert "ignored, not part of the network: total_ops, layer1.total_params" in checkpoint.notes
    assert identify(checkpoint).name == "resnet(basic 1-1-1-1)"


def test_checkpoints_from_before_batch_norm_counted(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    module = small()
    state = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    torch.save(state, path)
    checkpoint = read_checkpoint(path)
    other = build_module(checkpoint, identify(checkpoint))
    x = torch.ones(1, 3, 32, 32)
    torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)


@pytest.mark.parametrize("arch", ["resnet18", "resnet"])
def test_a_name_that_agrees(arch: str, tmp_path: Path) -> None:
    assert identify(saved(models.resnet18(num_classes=7), tmp_path), arch=arch).classes == 7


def test_a_name_that_disagrees(tmp_path: Path) -> None:
    checkpoint = saved(small(), tmp_path)
    message = refusal(checkpoint, "resnet18")
    assert "it is resnet(basic 1-1-1-1); layer1.1.conv1.weight (64, 64, 3, 3) is missing" in message
    assert "is not --arch mobilenet_v2: it is resnet(basic 1-1-1-1); features.0.0" in refusal(
        checkpoint, "mobilenet_v2"
    )
    assert "cifar_resnet: it is resnet(basic 1-1-1-1); leave" in refusal(checkpoint, "cifar_resnet")
    with pytest.raises(InputError, match="--arch resnet19 is not known"):
        identify(checkpoint, arch="resnet19")


FACTORIES = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out = nn.Linear(8, num_classes)
    def forward(self, x):
        return self.out(self.model(x))

def without_arguments():
    return Net(5)

def broken():
    raise ValueError("no weights for you")

def number():
    return 3
"""


@pytest.fixture
def mynet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    (tmp_path / "mynet.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    namespace: dict[str, type[nn.Module]] = {}
    exec(FACTORIES, namespace)
    return namespace["Net"](5).eval()


@pytest.mark.parametrize("factory", ["Net", "without_arguments"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_users_own_network(factory: str, prefix: str, mynet: nn.Module, tmp_path: Path) -> None:
    checkpoint = saved(mynet, tmp_path, prefix)
    path_before = list(sys.path)
    architecture = identify(checkpoint, arch=f"mynet:{factory}")
    assert (architecture.name, architecture.family) == (f"mynet:{factory}", "custom")
    assert (architecture.classes, architecture.features) == (5, 8)
    x = torch.ones(1, 3, 16, 16)
    module = build_module(checkpoint, architecture)
    torch.testing.assert_close(module(x), mynet(x), rtol=0, atol=0)
    assert sys.path == path_before and not module.training


def test_the_users_own_network_around_one_we_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrapped.py").write_text(
        "from torch import nn\n"
        "from torchvision.models.resnet import BasicBlock, ResNet\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(ResNet(BasicBlock, [1, 1, 1, 1], num_classes), nn.Softmax(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    checkpoint = saved(nn.Sequential(small(), nn.Softmax(1)), tmp_path)
    assert checkpoint.prefix == "0."
    architecture = identify(checkpoint, arch="wrapped:net")
    out = build_module(checkpoint, architecture)(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(out.sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("arch", "error", "told"),
    [
        ("nowhere:Net", InputError, "cannot import nowhere"),
        ("mynet:Nett", InputError, "mynet has no function 'Nett'"),
        ("mynet:number", InputError, "returned int, expected an nn.Module"),
        ("mynet:broken", CheckpointError, "ValueError: no weights for you"),
        (
            "torchvision.models:resnet18",
            CheckpointError,
            "does not fit torchvision.models:resnet18",
        ),
    ],
)
def test_a_factory_that_does_not_do(
    arch: str, error: type[Exception], told: str, mynet: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(error, match=re.escape(told)):
        identify(saved(mynet, tmp_path), arch=arch)


def test_identification_takes_milliseconds() -> None:
    with torch.device("meta"):
        module = ResNet(Bottleneck, [3, 8, 36, 3])
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}

    def once() -> float:
        start = time.perf_counter()
        assert fit(shapes) is not None
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.05
