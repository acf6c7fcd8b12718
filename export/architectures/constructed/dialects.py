"""What projects call the layers of networks that torchvision or timm constructs, and do in them.

DenseNet        files from before torchvision 0.3: `norm.1` for `norm1`
ConvNeXt        facebookresearch and Hugging Face, under timm's names: both list the
                downsampling apart from the stages, so the order of the layers does not tell
EfficientNet    efficientnet_pytorch and Hugging Face: their order tells; both pad as
                TensorFlow does, with its eps
"""

import re
from collections.abc import Callable

from resdeploy.export.architectures.family import NO_HABITS, Habits
from resdeploy.export.architectures.units import Shapes

_CONVNEXT = (
    # facebookresearch/ConvNeXt and its copies
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
    # Hugging Face
    (r"^(?:convnext(?:v2)?\.)?embeddings\.patch_embeddings\.", "stem.0."),
    (r"^(?:convnext(?:v2)?\.)?embeddings\.layernorm\.", "stem.1."),
    (
        r"^(?:convnext(?:v2)?\.)?encoder\.stages\.(\d)\.downsampling_layer\.",
        r"stages.\1.downsample.",
    ),
    (r"^(?:convnext(?:v2)?\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"^(?:convnext(?:v2)?\.)?layernorm\.", "head.norm."),
    (r"^classifier\.(weight|bias)$", r"head.fc.\1"),
    # both
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.layernorm\.", ".norm."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"\.grn\.(?:weight|gamma)$", ".mlp.grn.weight"),
    (r"\.grn\.(?:bias|beta)$", ".mlp.grn.bias"),
)

_PYTORCHCV_DARKNET = {
    "features.init_block.conv.weight",
    "features.stage1.unit2.conv1.conv.weight",
}


def translate(shapes: Shapes) -> dict[str, str]:
    """{the constructor's name: the file's}."""
    convnext = any(name.endswith("dwconv.weight") for name in shapes)
    rename = _convnext if convnext else _densenet
    return {rename(name): name for name in shapes}


def _densenet(name: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])", r"\1\2", name)


def _convnext(name: str) -> str:
    for pattern, ours in _CONVNEXT:
        name = re.sub(pattern, ours, name)
    return name


def habits_of(shapes: Shapes) -> Habits:
    """What a project's networks do other than the constructor's."""
    tensorflow = {"padding": "tf", "bn_eps": "1e-3"}
    if "layer1.0.conv5.weight" in shapes and "conv2.weight" in shapes:
        return Habits("kuangliu", {"stem_stride": "1", "pool": "no"}, "cifar", 32)
    if shapes.keys() >= _PYTORCHCV_DARKNET:
        return Habits("pytorchcv", {"negative_slope": "0.1"})
    known: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("efficientnet_pytorch", lambda name: name.endswith("_conv_stem.weight")),
        ("Hugging Face", lambda name: name.endswith("embeddings.convolution.weight")),
    )
    for origin, is_one in known:
        if any(is_one(name) for name in shapes):
            return Habits(origin, tensorflow)
    return NO_HABITS
