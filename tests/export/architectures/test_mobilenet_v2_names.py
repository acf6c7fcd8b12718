"""MobileNetV2 under the names of three authors, against torchvision's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models as models

from resdeploy.export.architectures.mobilenet_v2_names import habits, translate
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.builders import randomize_batch_norms
from tests.export.architectures.rebuilding import assert_same_function


def tonylins(name: str) -> str:
    first, *_ = name.split(".conv.")
    if ".conv." in name:
        widens = first != "features.1"
        nested = {"0.0.": "0.", "0.1.": "1.", "1.0.": "3.", "1.1.": "4.", "2.": "6.", "3.": "7."}
        if not widens:
            nested = {"0.0.": "0.", "0.1.": "1.", "1.": "3.", "2.": "4."}
        rest = name.removeprefix(f"{first}.conv.")
        start = next(key for key in nested if rest.startswith(key))
        return f"{first}.conv.{nested[start]}{rest.removeprefix(start)}"
    return name.replace("features.18.", "conv.").replace("classifier.1.", "classifier.")


def timm(name: str) -> str:
    stages = [s for s, n in enumerate([1, 2, 3, 4, 3, 3, 1]) for _ in range(n)]
    parts = name.split(".")
    if parts[0] == "classifier":
        return f"classifier.{parts[2]}"
    index, rest = int(parts[1]), ".".join(parts[2:])
    if index == 0:
        return rest.replace("0.", "conv_stem.", 1) if rest[0] == "0" else f"bn1.{parts[-1]}"
    if index == 18:
        return rest.replace("0.", "conv_head.", 1) if rest[0] == "0" else f"bn2.{parts[-1]}"
    stage = stages[index - 1]
    place = index - 1 - stages.index(stage)
    widening = ["0.0", "0.1", "1.0", "1.1", "2", "3"]
    layers = dict(
        zip(widening, ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"], strict=True)
    )
    if index == 1:
        layers = dict(
            zip(["0.0", "0.1", "1", "2"], ["conv_dw", "bn1", "conv_pw", "bn2"], strict=True)
        )
    return f"blocks.{stage}.{place}.{layers['.'.join(parts[3:-1])]}.{parts[-1]}"


def hugging_face(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "classifier":
        return f"classifier.{parts[2]}"
    index, rest = int(parts[1]), ".".join(parts[2:-1])
    if index in (0, 18):
        place = "conv_stem.first_conv" if index == 0 else "conv_1x1"
        kind = "convolution" if rest == "0" else "normalization"
        return f"{place}.{kind}.{parts[-1]}"
    roles = {"0": "expand_1x1", "1": "conv_3x3", "2": "reduce_1x1", "3": "reduce_1x1"}
    if index == 1:
        roles = {"0": "conv_3x3", "1": "reduce_1x1", "2": "reduce_1x1"}
    nested = len(parts) == 6
    second = parts[4] == "1" if nested else parts[3] == max(roles)
    kind = "normalization" if second else "convolution"
    place = "conv_stem" if index == 1 else f"layer.{index - 2}"
    return f"{place}.{roles[parts[3]]}.{kind}.{parts[-1]}"


@pytest.mark.parametrize("rename", [tonylins, timm, hugging_face])
def test_every_name_is_translated(rename: Callable[[str], str]) -> None:
    with torch.device("meta"):
        state = models.mobilenet_v2(num_classes=7).state_dict()
    theirs = {rename(name): tuple(tensor.shape) for name, tensor in state.items()}
    head = {name: name.replace("classifier.", "classifier.1.") for name in theirs}
    ours = {head.get(name, name): own for name, own in translate(theirs).items()}
    assert {name: rename(name) for name in state} == ours


@pytest.mark.parametrize("rename", [tonylins, timm])
def test_dialects(rename: Callable[[str], str], tmp_path: Path) -> None:
    module = randomize_batch_norms(models.mobilenet_v2(num_classes=7))
    path = tmp_path / "model.pth"
    torch.save({rename(key): value for key, value in module.state_dict().items()}, path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint)
    assert architecture.name == "mobilenet_v2"
    assert_same_function(module, build_module(checkpoint, architecture))


def test_hugging_face_s_habits() -> None:
    found = habits({"conv_stem.first_conv.convolution.weight": ()})
    assert (found.origin, found.settings["padding"]) == ("Hugging Face", "tf")
    assert habits({"features.0.0.weight": ()}).settings == {}
