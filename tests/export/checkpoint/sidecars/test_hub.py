"""A model's folder from a hub, read whole."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torchvision.models.resnet import ResNet

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.export.checkpoint.conftest import State, assert_gives_the_logits_of

RESNET = {
    "model_type": "resnet",
    "downsample_in_bottleneck": False,
    "hidden_act": "relu",
    "id2label": {"0": "tench", "1": "goldfish", "2": "shark"},
}
CONVNEXT = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": {"shortest_edge": 224},
}
MOBILENET = {
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 256},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
}
TIMM = {
    "architecture": "resnet10t",
    "num_classes": 3,
    "pretrained_cfg": {
        "input_size": [3, 176, 176],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "label_names": ["a", "b", "c"],
    },
}


def hugging_face(name: str) -> str:
    """The name that transformers gives a parameter of torchvision's ResNet."""
    if name.startswith("fc."):
        return f"classifier.1.{name[3:]}"
    for pattern, replacement in (
        (r"^conv1\.", "embedder.embedder.convolution."),
        (r"^bn1\.", "embedder.embedder.normalization."),
        (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
        (r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
        (r"\.downsample\.0\.", ".shortcut.convolution."),
        (r"\.downsample\.1\.", ".shortcut.normalization."),
        (r"^layer(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers."),
    ):
        name = re.sub(pattern, replacement, name)
    return f"resnet.{name}"


def folder_of(tmp_path: Path, weights: State, **files: dict[str, Any]) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_transformers_folder(small: ResNet, weights: State, tmp_path: Path) -> None:
    renamed = {hugging_face(name): value for name, value in weights.items()}
    folder = folder_of(tmp_path, renamed, config=RESNET, preprocessor_config=CONVNEXT)
    checkpoint = read_checkpoint(folder)
    assert checkpoint.labels == ("tench", "goldfish", "shark")
    assert checkpoint.sidecar is not None and checkpoint.sidecar.preprocess is not None
    preprocess = checkpoint.sidecar.preprocess
    assert (preprocess.resize_px, preprocess.crop_px) == (256, (224, 224))
    assert preprocess.interpolation == "bicubic"
    assert_gives_the_logits_of(small, checkpoint)


def test_mobilenets_processor_and_settings(weights: State, tmp_path: Path) -> None:
    config = {"model_type": "mobilenet_v2", "tf_padding": True, "layer_norm_eps": 0.001}
    folder = folder_of(tmp_path, weights, config=config, preprocessor_config=MOBILENET)
    sidecar = read_checkpoint(folder).sidecar
    assert sidecar is not None and sidecar.preprocess is not None
    assert sidecar.settings == {"padding": "tf", "bn_eps": "1e-3"}
    assert (sidecar.preprocess.resize_px, sidecar.preprocess.mean) == (256, (0.5, 0.5, 0.5))


def test_names_that_are_no_names_are_no_labels(weights: State, tmp_path: Path) -> None:
    config = {**RESNET, "id2label": {str(index): f"LABEL_{index}" for index in range(3)}}
    assert read_checkpoint(folder_of(tmp_path, weights, config=config)).labels is None


def test_timms_configuration(weights: State, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(folder_of(tmp_path, weights, config=TIMM))
    assert checkpoint.labels == ("a", "b", "c")
    assert checkpoint.sidecar is not None and checkpoint.sidecar.preprocess is not None
    preprocess = checkpoint.sidecar.preprocess
    assert (preprocess.resize_px, preprocess.crop_px) == (185, (176, 176))


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2_100"])
def test_a_sidecar_that_contradicts_the_tensors_is_told(
    name: str, weights: State, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, weights, config={**TIMM, "architecture": name})
    evidence = identify(read_checkpoint(folder)).evidence
    (told,) = (sentence for sentence in evidence if "which counts" in sentence)
    assert told.startswith(f"according to config.json it is {name}, but the tensors are resnet(")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config": {"model_type": "resnet", "id2label": 3}}, None),
        ({"preprocessor_config": {"size": {"width": 3}}}, "preprocessor_config.json is not"),
        ({"preprocessor_config": {"image_std": [0, 0, 0]}}, "preprocessor_config.json is not"),
        ({"config": {"architecture": "x", "input_size": [3, 0, 0]}}, "config.json is not"),
    ],
)  # fmt: skip
def test_damaged_configuration_is_one_line(
    files: dict[str, Any], told: str | None, weights: State, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, weights, **files)
    if told is None:
        assert read_checkpoint(folder).labels is None
        return
    with pytest.raises(CheckpointError, match=told) as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"without model\.safetensors or pytorch_model\.bin"):
        read_checkpoint(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08")
    with pytest.raises(CheckpointError, match="tf2onnx"):
        read_checkpoint(tmp_path)
