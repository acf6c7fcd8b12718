"""What authors call the layers of a pre-activation ResNet, and what follows from it."""

import pytest

from resdeploy.export.architectures.preact.dialects import translate_preact
from resdeploy.export.architectures.preact.resnet import FAMILY


@pytest.mark.parametrize(
    ("name", "origin", "reads"),
    [
        ("layer2.0.shortcut.0.weight", "kuangliu", "the-activated-input"),
        ("layer2.0.downsample.0.weight", "bearpaw", "the-input"),
        ("module.stages.1.blocks.0.downsample.conv.weight", "timm", "the-activated-input"),
        ("stage2.0.shortcut.weight", "weiaicunzai", "the-input"),
        ("conv3.0.residual.0.weight", "weiaicunzai", "the-input"),
        ("block2.layer.0.convShortcut.weight", "xternalz", "the-activated-input"),
        ("stage2.block1.shortcut.conv.weight", "hysts", "the-activated-input"),
        ("features.stage2.unit1.identity_conv.weight", "pytorchcv", "the-activated-input"),
        ("layer.1.block.0.batchnorm_0.weight", "DeepMind", "the-activated-input"),
    ],
)
def test_the_authors_habit_follows_from_a_name(name: str, origin: str, reads: str) -> None:
    habits = FAMILY.habits({name: (16, 8, 1, 1)})
    assert habits.origin == origin and habits.settings["shortcut_reads"] == reads
    bare = habits.settings.get("first_shortcut")
    assert bare == ("the-activated-input" if origin == "hysts" else None)
    assert (habits.settings.get("stride") == "1x1") == (origin in ("pytorchcv", "weiaicunzai"))
    deepmind = {"activation": "silu", "padding": "tf"}
    assert (deepmind.items() <= habits.settings.items()) == (origin == "DeepMind")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("layer2.0.shortcut.0.weight", "layer2.0.shortcut.weight"),
        ("layer2.0.downsample.0.weight", "layer2.0.shortcut.weight"),
        ("stages.1.blocks.0.downsample.conv.weight", "layer2.0.shortcut.weight"),
        ("stages.0.blocks.1.norm2.bias", "layer1.1.bn2.bias"),
        ("stem.conv.weight", "conv1.weight"),
        ("norm.running_var", "bn.running_var"),
        ("stage2.0.residual.5.weight", "layer2.0.conv2.weight"),
        ("stage2.block1.shortcut.conv.weight", "layer2.0.shortcut.weight"),
        ("conv3.0.residual.6.weight", "layer2.0.conv2.weight"),
        ("conv3.0.shortcut.0.weight", "layer2.0.shortcut.weight"),
        ("block2.layer.0.convShortcut.weight", "layer2.0.shortcut.weight"),
        ("pre.1.weight", "stem_norm.weight"),
        ("linear.weight", "fc.weight"),
        ("head.fc.bias", "fc.bias"),
    ],
)
def test_names_of_others(name: str, ours: str) -> None:
    assert translate_preact({name: ()}) == {ours: name}


def test_bn1_is_the_last_norm_of_a_wide_network_only() -> None:
    wide = {"block1.layer.0.bn1.weight": (), "bn1.weight": ()}
    assert translate_preact(wide)["bn.weight"] == "bn1.weight"
    assert translate_preact({"bn1.weight": ()}) == {"bn1.weight": "bn1.weight"}
