"""ResNets under the names of other authors."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models as models
from torchvision.models.resnet import BasicBlock

from resdeploy.export.architectures.residual_names import habits
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import assert_same_function
from tests.networks import NarrowResNet


def kuangliu(name: str) -> str:
    return name.replace("downsample", "shortcut").replace("fc.", "linear.")


def numbered(name: str) -> str:
    first, _, rest = name.partition(".")
    children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    return f"backbone.{children.index(first)}.{rest}" if first in children else name


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("resnet18", kuangliu),
        ("resnet18", numbered),
    ],
)
def test_dialects(name: str, rename: Callable[[str], str], tmp_path: Path) -> None:
    module = randomize_batch_norms(getattr(models, name)(num_classes=7))
    path = tmp_path / "model.pth"
    torch.save({rename(key): value for key, value in module.state_dict().items()}, path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint)
    assert architecture.name == name
    assert_same_function(module, build_module(checkpoint, architecture))


def test_a_head_beside_its_backbone(tmp_path: Path) -> None:
    backbone = randomize_batch_norms(NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=7))
    path = tmp_path / "model.pth"
    inside = {
        key if key.startswith("fc.") else f"backbone.{key}": value
        for key, value in backbone.state_dict().items()
    }
    torch.save({f"module.{key}": value for key, value in inside.items()}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.prefix == "module.backbone."
    module = build_module(checkpoint, identify(checkpoint))
    assert_same_function(backbone, module, size_px=32)


def test_pytorchcvs_bottlenecks_stride_in_the_first_convolution() -> None:
    first = "features.stage1.unit1.body"
    names = {
        f"{first}.conv2.conv.weight": (64, 64, 3, 3),
        f"{first}.conv3.conv.weight": (256, 64, 1, 1),
    }
    assert habits(names).settings == {"stride": "1x1"}
    grouped = {**names, f"{first}.conv2.conv.weight": (128, 4, 3, 3)}
    assert habits(grouped).settings == {}


def test_a_regnet_in_resnets_names_strides_from_its_third_stage_on() -> None:
    names = {
        "conv1.weight": (64, 3, 3, 3),
        "layer1.0.conv1.weight": (24, 64, 1, 1),
        "layer1.0.conv3.weight": (24, 24, 1, 1),
    }
    assert habits(names).settings == {"strides": "1,1,2,2"}
    assert habits({**names, "layer1.0.conv3.weight": (96, 24, 1, 1)}).settings == {}
