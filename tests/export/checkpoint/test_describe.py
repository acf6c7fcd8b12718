"""What `inspect` says of a checkpoint, as plain JSON."""

import json
from pathlib import Path

import pytest
import torch
from torchvision.models.resnet import ResNet

from resdeploy.export.checkpoint.describe import describe_checkpoint
from tests.export.checkpoint.conftest import State


def test_a_checkpoint_that_is_recognised(small: ResNet, weights: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in weights.items()}}, path)
    found = describe_checkpoint(path)
    assert next(iter(found)) == "kind" and json.loads(json.dumps(found)) == found
    assert (found["wrapper"], found["prefix"], found["format"]) == ("state_dict", "module.", "zip")
    assert found["architecture"] == "resnet(basic 1-1-1-1, 16-32-64-128 wide)"
    assert found["matched_by"] == "names"
    assert (found["classes"], found["features"], found["preprocess"]) == (3, 128, "imagenet")
    assert found["parameters"] == sum(p.numel() for p in small.parameters())
    assert (found["sidecar"], found["trained_ranges"]) == (None, None)
    assert "ignored: epoch (int)" in found["notes"]


def test_what_is_told_beside_the_tensors(weights: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    text = "data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[51, 51, 51], to_rgb=False)"
    ranges = {"layer1.0.conv1._input_quantizer._amax": torch.tensor(2.5)}
    torch.save({"state_dict": {**weights, **ranges}, "meta": {"cfg": text}}, path)
    found = describe_checkpoint(path)
    assert found["trained_ranges"] == 1 and found["sidecar"] == "meta"
    assert (found["preprocess"]["mean"], found["preprocess"]["std"]) == ([0.5] * 3, [0.2] * 3)
    assert found["preprocess"]["resize_px"] == 224
    assert "meta says channels=bgr" in found["evidence"]
    assert json.loads(json.dumps(found)) == found


def test_mean_and_std_alone_change_the_familys_preprocessing(
    weights: State, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    normalizer = {"normalizer.mean": torch.full((3, 1, 1), 0.4)}
    normalizer["normalizer.std"] = torch.full((3, 1, 1), 0.25)
    torch.save({**weights, **normalizer}, path)
    told = describe_checkpoint(path)["preprocess"]
    assert told["mean"] == pytest.approx([0.4] * 3) and told["std"] == pytest.approx([0.25] * 3)
    assert (told["resize_px"], told["crop_px"]) == (256, [224, 224])


def test_what_fits_nothing_is_told_and_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"some.weight": torch.ones(4, 4)}, path)
    found = describe_checkpoint(path)
    assert found["architecture"] is None and "no known architecture" in found["problem"]
    assert found["tensors"] == 1 and "classes" not in found
