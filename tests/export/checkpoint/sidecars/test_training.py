"""What training scripts leave beside the tensors settles what weights do not tell."""

import argparse

import pytest
import torch
from torchvision.models.resnet import ResNet
from torchvision.models.segmentation import fcn_resnet50

from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar
from tests.builders import randomize_batch_norms
from tests.export.checkpoint.conftest import Save, State, assert_gives_the_logits_of

OPEN_MMLAB = """
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],
    num_classes=3,
    std=[58.395, 57.12, 57.375],
    to_rgb=True)
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224)]))
"""


def sidecar_of(content: dict[str, object], save: Save) -> Sidecar:
    sidecar = save(content).sidecar
    assert sidecar is not None
    return sidecar


def test_torchvisions_arguments(weights: State, save: Save) -> None:
    args = argparse.Namespace(
        model="resnet50", val_resize_size=232, val_crop_size=224, interpolation="bilinear", lr=0.1
    )
    sidecar = sidecar_of({"model": weights, "args": args}, save)
    assert sidecar.architecture == "resnet50" and sidecar.preprocess is not None
    assert (sidecar.preprocess.resize_px, sidecar.preprocess.crop_px) == (232, (224, 224))


def test_arguments_of_another_kind_tell_nothing(weights: State, save: Save) -> None:
    args = argparse.Namespace(val_crop_size="many", val_resize_size=-3, model=None)
    assert save({"model": weights, "args": args}).sidecar is None


def test_arch_of_the_examples(weights: State, save: Save) -> None:
    assert sidecar_of({"state_dict": weights, "arch": "resnet18"}, save).architecture == "resnet18"


@pytest.mark.parametrize("to_rgb", [True, False])
def test_open_mmlab(to_rgb: bool, weights: State, save: Save) -> None:
    text = OPEN_MMLAB.replace("to_rgb=True", f"to_rgb={to_rgb}")
    meta = {"cfg": text, "dataset_meta": {"classes": ["x", "y", "z"]}}
    checkpoint = save({"state_dict": weights, "meta": meta})
    assert checkpoint.labels == ("x", "y", "z")
    sidecar = checkpoint.sidecar
    assert sidecar is not None and sidecar.preprocess is not None
    assert sidecar.preprocess.resize_px == 256
    red, _, blue = sidecar.preprocess.mean
    assert (red, blue) == ((0.485, 0.406) if to_rgb else (0.406, 0.485))
    assert sidecar.settings == ({} if to_rgb else {"channels": "bgr"})
    architecture = identify(checkpoint)
    assert architecture.settings["channels"] == ("rgb" if to_rgb else "bgr")
    told = "meta says channels=bgr" in architecture.evidence
    assert told != to_rgb


def test_the_user_outranks_the_sidecar(weights: State, save: Save) -> None:
    text = OPEN_MMLAB.replace("to_rgb=True", "to_rgb=False")
    checkpoint = save({"state_dict": weights, "meta": {"cfg": text}})
    assert identify(checkpoint, assume={"channels": "rgb"}).settings["channels"] == "rgb"


def test_a_normalizer_in_the_file(small: ResNet, weights: State, save: Save) -> None:
    state = {f"module.model.{name}": value for name, value in weights.items()}
    state["module.normalizer.new_mean"] = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    state["module.normalizer.new_std"] = torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    checkpoint = save({"model": state})
    assert checkpoint.sidecar is not None
    assert checkpoint.sidecar.normalization == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert_gives_the_logits_of(small, checkpoint)


def test_robustbenchs_mu_and_sigma(weights: State, save: Save) -> None:
    state = {f"model.{name}": value for name, value in weights.items()}
    state["mu"] = torch.full((1, 3, 1, 1), 0.5)
    state["sigma"] = torch.full((1, 3, 1, 1), 0.25)
    checkpoint = save(state)
    assert checkpoint.sidecar is not None
    assert checkpoint.sidecar.normalization == ((0.5,) * 3, (0.25,) * 3)
    assert identify(checkpoint).classes == 3


@pytest.mark.slow
def test_a_segmentation_networks_encoder_is_dilated(save: Save) -> None:
    torch.manual_seed(0)
    module = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    randomize_batch_norms(module)
    checkpoint = save(module.state_dict())
    architecture = identify(checkpoint)
    assert (architecture.name, architecture.classes) == ("resnet50", None)
    assert architecture.settings["dilated"] == "yes"
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = module.backbone(x)["out"]
        other = build_module(checkpoint, architecture)
        assert wanted.shape == (1, 2048, 8, 8)  # a classifier's would be 2x2
        torch.testing.assert_close(other(x), wanted.mean((2, 3)), rtol=1e-4, atol=1e-4)
