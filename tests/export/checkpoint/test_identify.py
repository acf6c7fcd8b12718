"""What is said when nothing fits, and when the user names the network.

The answer is an `Architecture` (`checkpoint/architecture.py`, data only), which is compared here.
"""

import re
from pathlib import Path

import pytest
import torch
import torchvision.models as models
from torch import nn

from resdeploy.deploy.errors import CheckpointError, InputError
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import Checkpoint, read_checkpoint
from tests.export.checkpoint.conftest import saved, untrained


def refusal(checkpoint: Checkpoint, arch: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        identify(checkpoint, arch=arch)
    message = str(caught.value)
    assert str(checkpoint.path) in message and "\n" not in message
    return message


@pytest.mark.slow
def test_another_network_is_told_with_the_nearest(tmp_path: Path) -> None:
    module = models.resnet50(num_classes=7)
    module.neck = nn.ModuleList(nn.Conv2d(3, 4, 5) for _ in range(4))
    message = refusal(saved(module, tmp_path))
    assert "nearest is resnet50 with 267 in common" in message
    shown = re.findall(r"(neck\.\S+ \(.*?\)) has no place in it", message)
    assert len(shown) == 3
    assert f"resdeploy export {tmp_path / 'model.pth'} --arch my_network:build" in message


@pytest.mark.slow
def test_of_a_detector_the_encoder_is_read_and_the_rest_named(tmp_path: Path) -> None:
    detector = models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    checkpoint = saved(detector, tmp_path)
    architecture = identify(checkpoint)
    assert (architecture.name, architecture.classes) == ("resnet50", None)
    (told,) = (note for note in checkpoint.notes if "is read" in note)
    assert "only the resnet50 under 'backbone.body.'" in told
    assert "rpn (6 tensors)" in told and "roi_heads (" in told
    assert build_module(checkpoint, architecture)(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)


def test_a_vision_transformer_shares_nothing(tmp_path: Path) -> None:
    transformer = models.VisionTransformer(32, 16, 1, 2, 32, 64, num_classes=7)
    message = refusal(saved(transformer, tmp_path))
    assert "nothing in it is alike: the first are class_token (1, 1, 32)" in message
    assert "known are resnet, mobilenet_v2, cifar_resnet" in message


def test_a_residual_network_with_more_in_it(tmp_path: Path) -> None:
    module = untrained()
    module.layer1[0].add_module("se", nn.Conv2d(64, 4, 1))
    message = refusal(saved(module, tmp_path, "module."))
    assert "nearest is resnet(basic 1-1-1-1)" in message
    assert "module.layer1.0.se.weight (4, 64, 1, 1) has no place in it" in message


def test_one_channel_missing_and_extra_tensors(tmp_path: Path) -> None:
    module = untrained()
    module.conv1 = nn.Conv2d(1, 64, 7, bias=False)
    del module.layer2[0].downsample[1]
    checkpoint = saved(module, tmp_path)
    message = refusal(checkpoint)
    assert "conv1.weight is (64, 1, 7, 7), expected (64, 3, 7, 7)" in message
    assert "layer2.0.downsample.1.weight (128,) is missing" in message
    assert message.count(" is missing") == 2 and "and 2 more" in message


def test_the_same_weight_under_two_names_is_no_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state = untrained().state_dict()
    torch.save({**state, "classifier.weight": state["fc.weight"]}, path)
    assert "means the same as another tensor" in refusal(read_checkpoint(path))


def test_profiling_marks_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    state = untrained().state_dict()
    torch.save({**state, "total_ops": torch.zeros(1), "layer1.total_params": torch.ones(1)}, path)
    checkpoint = read_checkpoint(path)
    assert "ignored, not part of the network: total_ops, layer1.total_params" in checkpoint.notes
    assert identify(checkpoint).name == "resnet(basic 1-1-1-1)"


@pytest.mark.parametrize("arch", ["resnet18", "resnet"])
def test_a_name_that_agrees(arch: str, tmp_path: Path) -> None:
    assert identify(saved(models.resnet18(num_classes=7), tmp_path), arch=arch).classes == 7


def test_a_name_that_disagrees(tmp_path: Path) -> None:
    checkpoint = saved(untrained(), tmp_path)
    message = refusal(checkpoint, "resnet18")
    assert "it is resnet(basic 1-1-1-1); layer1.1.conv1.weight (64, 64, 3, 3) is missing" in message
    assert "is not --arch mobilenet_v2: it is resnet(basic 1-1-1-1); features.0.0" in refusal(
        checkpoint, "mobilenet_v2"
    )
    assert "cifar_resnet: it is resnet(basic 1-1-1-1); leave" in refusal(checkpoint, "cifar_resnet")
    with pytest.raises(InputError, match="--arch resnet19 is not known"):
        identify(checkpoint, arch="resnet19")
