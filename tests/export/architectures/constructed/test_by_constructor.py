"""Networks that torchvision or timm constructs: recognised by what the constructor makes."""

from pathlib import Path

import pytest
import torch
import torchvision.models as models

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.architectures.constructed.by_constructor import FAMILY
from resdeploy.export.architectures.constructed.signatures import names, signature
from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.modules.constructed import construct
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold

# name -> (batch norms folded, left)
SMALL = {
    "squeezenet1_1": (0, 0),
    "shufflenet_v2_x0_5": (56, 0),
    "mobilenet_v3_small": (34, 0),
    "mnasnet0_5": (52, 0),
    "regnet_y_400mf": (53, 0),
}
LARGE = {"densenet121": (59, 62), "efficientnet_b0": (49, 0), "convnext_tiny": (0, 0)}


def check(name: str, folded: tuple[int, int], folder: Path) -> None:
    module = models.get_model(name, num_classes=7)
    architecture, fold = same_before_and_after_the_fold(module, folder, 64)
    assert (architecture.name, architecture.classes) == (name, 7)
    assert (len(fold.folded), fold.left) == folded


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_torchvisions_function(name: str, tmp_path: Path) -> None:
    check(name, SMALL[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_torchvisions_function_of_larger_ones(name: str, tmp_path: Path) -> None:
    check(name, LARGE[name], tmp_path)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_0", "regnet_y_400mf"])
def test_order_alone_tells_it(name: str) -> None:
    with torch.device("cpu"):
        module = construct(name, 7)
    assert module is not None
    found = fit_of(module, keep=False)
    assert (found.network.name, found.matched_by, found.network.classes) == (name, "structure", 7)


def test_densenet_files_from_before_torchvision_0_3() -> None:
    module = construct("densenet121", 7)
    assert module is not None
    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    old = {
        name.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv2", "conv.2"): s
        for name, s in shapes.items()
    }
    assert FAMILY.translate(old).keys() == shapes.keys()


@pytest.mark.slow
def test_timm_s_networks_are_told_by_their_own_names(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("efficientnet_lite0", num_classes=7)
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 64)
    assert (architecture.name, fold.left) == ("timm:efficientnet_lite0", 0)


@pytest.mark.slow
def test_a_network_of_timm_s_may_be_named(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("resnest14d", num_classes=5).eval()
    torch.save(module.state_dict(), tmp_path / "model.pth")
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    architecture = identify(checkpoint, arch="timm:resnest14d")
    assert (architecture.name, architecture.classes) == ("timm:resnest14d", 5)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(build_module(checkpoint, architecture)(images), module(images))
    with pytest.raises(CheckpointError, match="is not --arch timm:resnest26d"):
        identify(checkpoint, arch="timm:resnest26d")


@pytest.mark.slow
def test_networks_for_cifar_have_the_same_names_and_stride_less(tmp_path: Path) -> None:
    module = models.shufflenet_v2_x0_5(num_classes=10)
    module.conv1[0].stride = (1, 1)
    module.maxpool = torch.nn.Identity()
    assumed = {"stem_stride": "1", "pool": "no"}
    architecture, _ = same_before_and_after_the_fold(module, tmp_path, 32, assumed)
    assert architecture.name == "shufflenet_v2_x0_5"
    usual = identify(read_checkpoint(tmp_path / "model.pth")).settings
    assert (usual["stem_stride"], usual["pool"]) == ("2", "yes")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("timm:")])
def test_the_stem_that_is_assumed_is_the_constructors(name: str) -> None:
    found = signature(name)
    assert found is not None
    network = FAMILY.named(name, (Linear("", found.features, 7, True),))
    assert network is not None
    assumed = {choice.key: choice.default for choice in network.assumptions}
    if "stem_stride" not in assumed:
        assert name.startswith(("convnext", "maxvit", "swin", "vit"))
        return
    module = construct(name, 7)
    assert module is not None
    layers = [part for part in module.modules() if not list(part.children())]
    first = next(part for part in layers if isinstance(part, torch.nn.Conv2d))
    assert first.stride == (int(assumed["stem_stride"]),) * 2
    second = next(
        at for at, p in enumerate(layers) if isinstance(p, torch.nn.Conv2d) and p != first
    )
    pooled = any(isinstance(part, torch.nn.MaxPool2d) for part in layers[:second])
    # of SqueezeNet's three pools none is special
    assert pooled == (assumed.get("pool") == "yes") or name.startswith(("squeezenet", "shufflenet"))
