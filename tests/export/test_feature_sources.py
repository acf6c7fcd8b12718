"""`export --features` on what other projects save: detectors, segmentation networks, mmpretrain."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation import fcn_resnet50, lraspp_mobilenet_v3_large

from resdeploy.deploy import load
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.errors import InputError
from resdeploy.export import ExportOptions, export_checkpoint
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet

_PX = 64
_STAGES = {"layer1": "C2", "layer2": "C3", "layer3": "C4", "layer4": "C5"}
_DETECTRON2 = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)
_TOLERANCE = 1e-4  # of a map's largest value


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=7)
    return randomize_batch_norms(made)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, _PX, _PX, generator=torch.Generator().manual_seed(1))


def _detectron2(name: str) -> str:
    for pattern, theirs in _DETECTRON2:
        name = re.sub(pattern, theirs, name)
    return f"backbone.bottom_up.{name}"


def _exported(checkpoint: Path, names: tuple[str, ...]) -> Path:
    options = ExportOptions(
        output=checkpoint.with_suffix(".bundle"),
        features=names,
        input_size_px=_PX,
        precisions=("fp32",),
    )
    return export_checkpoint(checkpoint, options).bundle


def _check(bundle: Path, expected: dict[str, torch.Tensor], images: torch.Tensor) -> None:
    with load(bundle, backend="ort-cpu", precision="fp32") as classifier:
        found = classifier.features(images.numpy())
    for name, values in expected.items():
        limit = _TOLERANCE * float(values.abs().max())
        np.testing.assert_allclose(found[name], values.detach().numpy(), rtol=0, atol=limit)


@pytest.mark.parametrize("origin", ["detectron2", "mmpretrain"])
def test_maps_are_those_of_the_projects_own_network(
    origin: str, network: nn.Module, images: torch.Tensor, tmp_path: Path
) -> None:
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("tracked")}
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    path = tmp_path / ("model.pkl" if origin == "detectron2" else "model.pth")
    if origin == "detectron2":  # a detector, saved as numpy arrays
        arrays = {_detectron2(name): value.numpy() for name, value in body.items()}
        arrays["proposal_generator.rpn_head.conv.weight"] = np.zeros((8, 8, 3, 3), np.float32)
        arrays["roi_heads.box_predictor.cls_score.weight"] = np.zeros((8, 16), np.float32)
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party"}))
    else:
        head = {"head.fc.weight": state["fc.weight"], "head.fc.bias": state["fc.bias"]}
        named = {f"backbone.{name}": value for name, value in body.items()}
        torch.save({"meta": {}, "state_dict": {**named, **head}}, path)
    bundle = _exported(path, tuple(_STAGES.values()))
    features = read_bundle(bundle).manifest.features
    assert [(f.name, f.stride) for f in features] == [("C2", 4), ("C3", 8), ("C4", 16), ("C5", 32)]
    with torch.no_grad():
        _check(bundle, create_feature_extractor(network, _STAGES)(images), images)


@pytest.mark.slow
def test_dilated_stages_stay_at_their_stride(images: torch.Tensor, tmp_path: Path) -> None:
    """Of a segmentation network, the last map of stride 8 is that of its last stage."""
    torch.manual_seed(0)
    module = randomize_batch_norms(fcn_resnet50(weights=None, weights_backbone=None))
    torch.save(module.state_dict(), tmp_path / "fcn.pth")
    bundle = _exported(tmp_path / "fcn.pth", ("C2", "C3"))
    features = read_bundle(bundle).manifest.features
    assert [(f.name, f.stride, f.channels) for f in features] == [("C2", 4, 256), ("C3", 8, 2048)]
    with torch.no_grad():
        _check(bundle, {"C3": module.backbone(images)["out"]}, images)


@pytest.mark.slow
def test_an_encoder_without_its_last_layers(images: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    randomize_batch_norms(module)
    path = tmp_path / "lraspp.pth"
    torch.save(module.state_dict(), path)
    with pytest.raises(InputError, match="mobilenet_v3_large without its last layers"):
        _exported(path, ())
    bundle = _exported(path, ("C4",))
    with torch.no_grad():
        _check(bundle, {"C4": module.backbone(images)["high"]}, images)
