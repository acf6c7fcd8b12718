"""The user's own network: built by their function, with the checkpoint's weights."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from resdeploy.deploy.errors import CheckpointError, InputError
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.custom import _factory
from resdeploy.export.checkpoint.identify import identify
from tests.export.checkpoint.conftest import saved, untrained

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
    checkpoint = saved(nn.Sequential(untrained(), nn.Softmax(1)), tmp_path)
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


@pytest.mark.parametrize("arch", [":", ":x", "..:x"])
def test_what_is_no_module_is_named(arch: str) -> None:
    with pytest.raises(InputError, match="is no module's name: write module:factory"):
        _factory(arch)
