"""The names that other projects give to networks of torchvision's and timm's."""

import re

import pytest

from resdeploy.export.architectures.constructed.dialects import habits_of, translate
from resdeploy.export.architectures.constructed.signatures import signature
from resdeploy.export.architectures.units import Shapes
from resdeploy.export.matching.fitting import fits

# timm's name -> another project's
_AUTHORS = (
    (r"^stem\.(\d)", r"downsample_layers.0.\1"),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)
_HUGGING_FACE = (
    (r"^stem\.0", "convnext.embeddings.patch_embeddings"),
    (r"^stem\.1", "convnext.embeddings.layernorm"),
    (r"\.norm\.", ".layernorm."),
    (r"^stages\.(\d)\.downsample\.", r"convnext.encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d)\.blocks\.", r"convnext.encoder.stages.\1.layers."),
    (r"^head\.layernorm\.", "convnext.layernorm."),
    (r"^head\.fc\.", "classifier."),
    (r"\.gamma$", ".layer_scale_parameter"),
)
_BOTH = ((r"\.conv_dw\.", ".dwconv."), (r"\.mlp\.fc", ".pwconv"), (r"\.mlp\.grn\.", ".grn."))


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> Shapes:
    found = signature(name)
    assert found is not None
    shapes = {}
    for tensor, shape in found.for_classes(7).items():
        for pattern, theirs in (*rules, *_BOTH):
            tensor = re.sub(pattern, theirs, tensor)
        shapes[tensor] = (1, 1, 1, *shape) if ".grn." in tensor else shape
    return shapes


@pytest.mark.parametrize("rules", [_AUTHORS, _HUGGING_FACE], ids=["authors", "Hugging Face"])
@pytest.mark.parametrize("name", ["timm:convnext_tiny", "timm:convnextv2_atto"])
def test_convnext(name: str, rules: tuple[tuple[str, str], ...]) -> None:
    shapes = renamed(name, rules)
    assert not signature(name).tensors.keys() <= shapes.keys()  # type: ignore[union-attr]
    (found,) = fits(shapes)
    assert (found.network.name, found.network.classes, found.matched_by) == (name, 7, "names")


def test_names_of_other_networks_stay() -> None:
    assert translate({"features.0.weight": (4, 3, 3, 3)}) == {
        "features.0.weight": "features.0.weight"
    }


@pytest.mark.parametrize(
    ("stem", "padding"),
    [
        ("_conv_stem.weight", "tf"),
        ("efficientnet.embeddings.convolution.weight", "tf"),
        ("conv_stem.weight", None),
    ],
)
def test_who_pads_as_tensorflow_does(stem: str, padding: str | None) -> None:
    assert habits_of({stem: (32, 3, 3, 3)}).settings.get("padding") == padding


def test_pytorchcvs_darknet_has_the_originals_slope() -> None:
    unit = "features.stage1.unit2.conv1.conv.weight"
    habits = habits_of({"features.init_block.conv.weight": (32, 3, 3, 3), unit: (32, 64, 1, 1)})
    assert habits.settings == {"negative_slope": "0.1"}
    assert not habits_of({unit: (32, 64, 1, 1)}).settings


def test_kuanglius_shufflenet_is_made_for_32_pixels() -> None:
    names = {"conv1.weight": (24, 3, 3, 3), "layer1.0.conv5.weight": (), "conv2.weight": ()}
    habits = habits_of(names)
    assert habits.settings == {"stem_stride": "1", "pool": "no"} and habits.input_size_px == 32
