"""MobileNetV1 under the names of four authors, and by the order of its layers."""

from pathlib import Path

import pytest
import torch
from torch import nn

from resdeploy.export.architectures.mobilenet_v1 import FAMILY
from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold

PAPER = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class Marvis(nn.Module):
    """A compact restatement: `model.N.0`, `.1`, `.3`, `.4`."""

    def __init__(self, width: float, strides: tuple[int, ...], relu: type[nn.Module]) -> None:
        super().__init__()
        stem = int(32 * width)
        layers = [
            nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), relu())
        ]
        inputs = stem
        for channels, stride in zip(PAPER, strides, strict=False):
            out = int(channels * width)
            layers.append(
                nn.Sequential(
                    nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
                    nn.BatchNorm2d(inputs),
                    relu(),
                    nn.Conv2d(inputs, out, 1, bias=False),
                    nn.BatchNorm2d(out),
                    relu(),
                )
            )
            inputs = out
        self.model = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.model(x).mean((2, 3)))
        return logits


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_any_width_is_rebuilt(activation: str, tmp_path: Path) -> None:
    relu: type[nn.Module] = {"relu": nn.ReLU, "relu6": nn.ReLU6}[activation]
    module = Marvis(0.25, STRIDES, relu)
    assume = {"activation": activation}
    architecture, fold = same_before_and_after_the_fold(module, tmp_path, 64, assume)
    assert architecture.name == "mobilenet_v1_w0.25"
    assert (len(fold.folded), fold.left) == (27, 0)


def test_fewer_blocks_stride_where_the_width_doubles(tmp_path: Path) -> None:
    module = Marvis(0.25, (1, 2, 1, 2), nn.ReLU)
    architecture, _ = same_before_and_after_the_fold(module, tmp_path, 32)
    assert any("strides 1,2,1,2" in said for said in architecture.assumptions)


def test_order_alone_tells_it() -> None:
    module = Marvis(0.25, STRIDES, nn.ReLU)
    assert fit_of(module).matched_by == "names"
    assert fit_of(module, keep=False).matched_by == "structure"


@pytest.mark.slow
def test_timms(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("mobilenetv1_100", num_classes=7)
    architecture, _ = same_before_and_after_the_fold(module, tmp_path, 64, {"activation": "relu6"})
    assert architecture.name == "mobilenet_v1"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("mobilenet_v1.conv_stem.convolution.weight", "model.0.0.weight"),
        ("mobilenet_v1.layer.0.convolution.weight", "model.1.0.weight"),
        ("mobilenet_v1.layer.25.normalization.bias", "model.13.4.bias"),
        ("layers.12.conv2.weight", "model.13.3.weight"),
        ("classifier.weight", "fc.weight"),
    ],
)
def test_names_of_others(name: str, ours: str) -> None:
    assert FAMILY.translate({name: ()}) == {ours: name}


def test_weiaicunzai_s_stages_are_counted_through() -> None:
    blocks = ["stem.1", "conv1.0", "conv1.1", "conv2.0"]
    names = [f"{block}.depthwise.0.weight" for block in blocks]
    ours = FAMILY.translate({name: () for name in names})
    assert list(ours) == [f"model.{number}.0.weight" for number in (1, 2, 3, 4)]


def test_hugging_face_s_habits() -> None:
    habits = FAMILY.habits({"layer.0.convolution.weight": ()})
    assert habits.settings == {"padding": "tf", "activation": "relu6", "bn_eps": "1e-3"}
    assert habits.preprocess == "half"
