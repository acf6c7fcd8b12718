"""Every architecture, saved as a state_dict: recognised by its tensors, rebuilt bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models._utils import _make_divisible
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from resdeploy.deploy.errors import InputError
from resdeploy.export.checkpoint import read_checkpoint
from resdeploy.export.fitting import fit
from resdeploy.export.identify import Architecture, build_module, identify

TORCHVISION = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "mobilenet_v2",
]


def randomised(module: nn.Module) -> nn.Module:
    """Batch-norm statistics as training leaves them, not the 0 and 1 of initialisation."""
    generator = torch.Generator().manual_seed(0)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            assert child.running_mean is not None and child.running_var is not None
            child.running_mean.normal_(0, 0.2, generator=generator)
            child.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(child.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(child.bias, 0, 0.1, generator=generator)
    return module.eval()


def rebuilt(
    module: nn.Module, folder: Path, assume: dict[str, str] | None = None
) -> tuple[Architecture, nn.Module]:
    path = folder / "model.pth"
    torch.save(module.state_dict(), path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint, assume=assume)
    return architecture, build_module(checkpoint, architecture)


def assert_same_function(module: nn.Module, other: nn.Module, size_px: int = 64) -> None:
    x = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_are_recognised_by_their_shapes(name: str) -> None:
    with torch.device("meta"):
        module = getattr(models, name)(num_classes=7)
    found = fit({key: tuple(value.shape) for key, value in module.state_dict().items()})
    assert found is not None
    assert (found.network.name, found.network.classes, found.prefix) == (name, 7, "")


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "mobilenet_v2"])
def test_torchvisions_networks_are_rebuilt_bit_for_bit(name: str, tmp_path: Path) -> None:
    module = randomised(getattr(models, name)(num_classes=7))
    architecture, other = rebuilt(module, tmp_path)
    assert architecture.name == name
    assert architecture.classes == 7
    assert architecture.parameters == sum(p.numel() for p in module.parameters())
    assert not other.training and not any(p.requires_grad for p in other.parameters())
    assert_same_function(module, other)


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.3, 2.0])
def test_mobilenet_v2_widths_are_recognised_by_their_shapes(width: float) -> None:
    with torch.device("meta"):
        module = models.mobilenet_v2(num_classes=7, width_mult=width)
    found = fit({key: tuple(value.shape) for key, value in module.state_dict().items()})
    assert found is not None and found.network.name == f"mobilenet_v2_w{width:g}"


@pytest.mark.parametrize("width", [0.1, 0.35, 1.4])
def test_mobilenet_v2_of_any_width_is_rebuilt(width: float, tmp_path: Path) -> None:
    module = randomised(models.mobilenet_v2(num_classes=7, width_mult=width))
    architecture, other = rebuilt(module, tmp_path)
    assert architecture.name == f"mobilenet_v2_w{width}"
    assert_same_function(module, other)


def test_resnext_of_odd_cardinality(tmp_path: Path) -> None:
    module = randomised(ResNet(Bottleneck, [2, 3, 1, 2], 7, groups=8, width_per_group=14))
    architecture, other = rebuilt(module, tmp_path)
    assert architecture.name == "resnet(2-3-1-2, 8x14d)"
    assert any("8 groups, base width 14" in sentence for sentence in architecture.evidence)
    assert_same_function(module, other)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(st.integers(1, 2), min_size=4, max_size=4),
    groups=st.integers(1, 9),
    base_width=st.integers(2, 9),
    classes=st.integers(1, 12),
)
def test_any_small_resnext_is_rebuilt(
    layers: list[int],
    groups: int,
    base_width: int,
    classes: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    module = ResNet(Bottleneck, layers, classes, groups=groups, width_per_group=base_width)
    architecture, other = rebuilt(randomised(module), tmp_path_factory.mktemp("resnext"))
    assert architecture.classes == classes
    assert_same_function(module, other, size_px=32)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    stages=st.lists(
        st.tuples(st.integers(1, 6), st.integers(4, 40), st.integers(1, 3), st.integers(1, 2)),
        min_size=1,
        max_size=8,
    ),
    width=st.sampled_from([0.25, 0.5, 1.0, 1.1]),
)
def test_any_mobilenet_v2_setting_is_rebuilt_once_its_strides_are_told(
    stages: list[tuple[int, int, int, int]],
    width: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # Neighbours that agree in t and c are one stage: nothing in the weights parts them.
    seen = [(t, _make_divisible(c * width, 8)) for t, c, _, _ in stages]
    stages = [row for i, row in enumerate(stages) if i == 0 or seen[i] != seen[i - 1]]
    module = randomised(MobileNetV2(5, width, [list(row) for row in stages]))
    strides = ",".join(str(stride) for *_, stride in stages)
    folder = tmp_path_factory.mktemp("mobilenet")
    _, other = rebuilt(module, folder, {"strides": strides})
    assert_same_function(module, other, size_px=32)


class Shortcut(nn.Module):
    """Option A as the CIFAR ResNets in circulation write it."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))


class Small(nn.Module):
    """An independent CIFAR ResNet; `option` is A or B, `names` the shortcut's and the head's."""

    def __init__(self, n: int, option: str, widths: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layers = len(widths)
        inputs = widths[0]
        for stage, width in enumerate(widths):
            stride, out = (2 if stage else 1), width * (4 if bottleneck else 1)
            blocks: list[nn.Module] = []
            for _ in range(n):
                shortcut: nn.Module | None = None
                if inputs != out:
                    projection = nn.Conv2d(inputs, out, 1, stride, bias=False)
                    shortcut = nn.Sequential(projection, nn.BatchNorm2d(out))
                    if option == "A":
                        shortcut = Shortcut(width)
                block = Bottleneck if bottleneck else BasicBlock
                blocks.append(block(inputs, width, stride, shortcut))
                inputs, stride = out, 1
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(self.layers):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@pytest.mark.parametrize(
    ("n", "option", "widths", "bottleneck", "name"),
    [
        (3, "A", (16, 32, 64), False, "cifar_resnet20"),
        (9, "A", (16, 32, 64), False, "cifar_resnet56"),
        (3, "B", (16, 32, 64), False, "cifar_resnet20"),
        (2, "B", (16, 32, 64), True, "cifar_resnet20"),
        (2, "B", (64, 128, 256, 512), False, "resnet18_32px"),
        (1, "A", (8, 16), False, "cifar_resnet(basic 1-1, 8-16 wide)"),
    ],
)
def test_cifar_resnets(
    n: int, option: str, widths: tuple[int, ...], bottleneck: bool, name: str, tmp_path: Path
) -> None:
    module = randomised(Small(n, option, widths, bottleneck))
    architecture, other = rebuilt(module, tmp_path)
    assert (architecture.name, architecture.classes) == (name, 10)
    assert (architecture.input_size_px, architecture.preprocess) == (32, "cifar")
    padded = any("zero channels around" in sentence for sentence in architecture.assumptions)
    assert padded == (option == "A")
    assert_same_function(module, other, size_px=32)


def kuangliu(name: str) -> str:
    return name.replace("downsample", "shortcut").replace("fc.", "linear.")


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


def numbered(name: str) -> str:
    first, _, rest = name.partition(".")
    children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    return f"backbone.{children.index(first)}.{rest}" if first in children else name


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("resnet18", kuangliu),
        ("resnet18", numbered),
        ("mobilenet_v2", tonylins),
        ("mobilenet_v2", timm),
    ],
)
def test_dialects(name: str, rename: Callable[[str], str], tmp_path: Path) -> None:
    module = randomised(getattr(models, name)(num_classes=7))
    path = tmp_path / "model.pth"
    torch.save({rename(key): value for key, value in module.state_dict().items()}, path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint)
    assert architecture.name == name
    assert_same_function(module, build_module(checkpoint, architecture))


HEADS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "no bias": lambda: nn.Linear(512, 7, bias=False),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 7)),
    "two layers": lambda: nn.Sequential(
        nn.Linear(512, 30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 7)
    ),
    "two linear layers": lambda: nn.Sequential(nn.Linear(512, 30), nn.Linear(30, 7)),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("called", ["fc", "classifier", "linear", "head"])
def test_heads_of_any_name(head: str, called: str, tmp_path: Path) -> None:
    module = ResNet(BasicBlock, [1, 1, 1, 1])
    module.fc = HEADS[head]()
    randomised(module)
    path = tmp_path / "model.pth"
    state = {key.replace("fc.", f"{called}."): value for key, value in module.state_dict().items()}
    torch.save(state, path)
    checkpoint = read_checkpoint(path)
    architecture = identify(checkpoint)
    assert (architecture.classes, architecture.features) == (None if head == "none" else 7, 512)
    asked = any("head the activation" in sentence for sentence in architecture.assumptions)
    assert asked == (head == "two layers")
    assert any("pooled features" in s for s in architecture.evidence) == (head == "none")
    assert_same_function(module, build_module(checkpoint, architecture), size_px=32)


def test_a_head_beside_its_backbone(tmp_path: Path) -> None:
    backbone = randomised(ResNet(BasicBlock, [1, 1, 1, 1], 7))
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


def test_the_stride_of_a_bottleneck_is_assumed_and_can_be_told(tmp_path: Path) -> None:
    module = randomised(ResNet(Bottleneck, [1, 1, 1, 1], 7))
    for stage in (2, 3, 4):
        block: Any = module.get_submodule(f"layer{stage}.0")
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    architecture, _ = rebuilt(module, tmp_path)
    assert any("3x3" in s and "--assume stride=1x1" in s for s in architecture.assumptions)
    architecture, other = rebuilt(module, tmp_path, {"stride": "1x1"})
    assert not any("--assume stride=" in sentence for sentence in architecture.assumptions)
    assert "given: stride is 1x1" in architecture.evidence
    assert_same_function(module, other)


def test_eps_activation_and_stage_strides_can_be_told(tmp_path: Path) -> None:
    module = randomised(models.mobilenet_v2(num_classes=7, width_mult=0.25))
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eps = 1e-3
        for name, activation in child.named_children():
            if isinstance(activation, nn.ReLU6):
                setattr(child, name, nn.ReLU())
    _, other = rebuilt(module, tmp_path, {"bn_eps": "1e-3", "activation": "relu"})
    assert_same_function(module, other)


@pytest.mark.parametrize(
    ("assume", "told"),
    [
        ({"strides": "1,2,2"}, "--assume strides=1,2,2 is not understood"),
        ({"bn_eps": "tiny"}, "--assume bn_eps=tiny is not understood"),
        ({"stride": "1x1"}, "has no such choice, expected one of strides, activation, bn_eps"),
        ({"strides": "2,2,2,2"}, "cannot have stride 2"),
    ],
)
def test_an_assumption_that_cannot_be_is_refused(
    assume: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told):
        rebuilt(ResNet(BasicBlock, [1, 1, 1, 1], 7), tmp_path, assume)
