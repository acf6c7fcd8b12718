"""Other dialects' names of a residual network's parameters, as torchvision's.

kuangliu and bearpaw; a numbered Sequential (`nn.Sequential(*list(resnet.children())[:-1])`) and
fastai's body and head; hysts; Hugging Face; detectron2; OpenMMLab's deep stem; NVIDIA's
DeepLearningExamples; Cadene's squeeze-and-excitation; CSAIL's deep stem.
"""

import re
from collections.abc import Callable

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Habits
from resdeploy.export.architectures.units import Shapes

STEMS = (
    "conv1.weight",
    "0.weight",
    "conv.weight",
    "conv1.0.weight",
    "layer0.conv1.weight",
    "stem.conv1.weight",
    "stem.0.conv.weight",
    "embedder.embedder.convolution.weight",
)

# A body saved as nn.Sequential(*list(resnet.children())[:-1]) numbers what torchvision names.
_NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_DEEP = {"0": ("conv1.0", "conv1.1"), "1": ("conv1.3", "conv1.4"), "2": ("conv1.6", "bn1")}
_PLAIN_DEEP = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4",
               "conv3": "conv1.6", "bn3": "bn1"}  # fmt: skip
_HF = {"convolution": "conv", "normalization": "bn"}

Rename = str | Callable[[re.Match[str]], str]


def _compiled(*rules: tuple[str, Rename]) -> tuple[tuple[re.Pattern[str], Rename], ...]:
    """Once, since each is tried on every name under every prefix."""
    return tuple((re.compile(pattern), renamed) for pattern, renamed in rules)


_RULES = _compiled(
    # stages called otherwise: detectron2's, NVIDIA's
    (r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}."),
    (r"^layers\.(\d)\.(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    # kuangliu and hysts
    (r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample."),
    (r"^(conv|bn)\.", r"\g<1>1."),
    (r"^stage(\d+)\.block(\d+)\.", lambda m: f"layer{m[1]}.{int(m[2]) - 1}."),
    (r"^(layer\d+\.\d+)\.(?:shortcut|downsample)\.conv\.", r"\1.downsample.0."),
    (r"^(layer\d+\.\d+)\.(?:shortcut|downsample)\.bn\.", r"\1.downsample.1."),
    # Hugging Face
    (r"^embedder\.embedder\.(convolution|normalization)\.", lambda m: f"{_HF[m[1]]}1."),
    (r"^encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (
        r"^(layer\d+\.\d+)\.layer\.(\d)\.(convolution|normalization)\.",
        lambda m: f"{m[1]}.{_HF[m[3]]}{int(m[2]) + 1}.",
    ),
    (
        r"^(layer\d+\.\d+)\.(?:shortcut|downsample)\.(convolution|normalization)\.",
        lambda m: f"{m[1]}.downsample.{0 if m[2] == 'convolution' else 1}.",
    ),
    # detectron2
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.(conv1|fc)\.", r"\1."),
    (r"^(layer\d+\.\d+)\.conv(\d)\.norm\.", r"\1.bn\2."),
    (r"^(layer\d+\.\d+)\.downsample\.norm\.", r"\1.downsample.1."),
    (r"^(layer\d+\.\d+)\.(?:downsample|shortcut)\.weight$", r"\1.downsample.0.weight"),
    # OpenMMLab's deep stem
    (r"^stem\.([0-2])\.(conv|bn)\.", lambda m: f"{_DEEP[m[1]][m[2] == 'bn']}."),
    # squeeze and excitation: Cadene, OpenMMLab, NVIDIA
    (r"\.se_module\.", ".se."),
    (r"\.se_layer\.conv([12])\.conv\.", r".se.fc\1."),
    (r"\.squeeze\.squeeze\.", ".se.fc1."),
    (r"\.squeeze\.expand\.", ".se.fc2."),
)


def translate(shapes: Shapes) -> dict[str, str]:
    """{torchvision's name: the checkpoint's} for every tensor, whatever the dialect."""
    numbered = "4.0.conv1.weight" in shapes
    deep = _plain_deep_stem(shapes)
    names = {}
    for name in shapes:
        canonical = name.removeprefix("layer0.")
        if numbered:
            canonical = _from_numbered(canonical)
        first, _, rest = canonical.partition(".")
        if deep and first in _PLAIN_DEEP:
            canonical = f"{_PLAIN_DEEP[first]}.{rest}"
        for pattern, replacement in _RULES:
            canonical = pattern.sub(replacement, canonical)
        names[canonical] = name
    for canonical, name in network.translate_head(shapes, "fc").items():
        names.pop(name, None)
        names[canonical] = name
    return names


def _plain_deep_stem(shapes: Shapes) -> bool:
    """conv1, conv2 and conv3 beside each other, as CSAIL and Cadene's SENet-154 have them."""
    stem = (shapes.get(f"{holder}conv2.weight", ()) for holder in ("", "layer0."))
    return any(len(shape) == 4 for shape in stem)


def _from_numbered(name: str) -> str:
    # fastai's head is a second Sequential: 1.2 and 1.6 norms, 1.4 and 1.8 linear.
    head = re.fullmatch(r"1\.(\d+)\.(weight|bias)", name)
    if head:
        return f"fc.{head[1]}.{head[2]}"
    first, _, rest = name.partition(".")
    return f"{_NUMBERED[first]}.{rest}" if first in _NUMBERED else name


def habits(shapes: Shapes) -> Habits:
    """What the networks that have such names are known to do."""
    if "layer0.conv1.weight" in shapes:
        settings = {"pool_padding": "0"}
        first = shapes.get("layer1.0.conv2.weight", (0, 1))
        if first[0] == first[1] and "layer0.conv2.weight" not in shapes:
            settings["stride"] = "1x1"  # SE-ResNet strides in the 1x1, SE-ResNeXt in the 3x3
        if "layer1.0.conv3.weight" not in shapes:
            settings["squeeze_relu"] = "yes"  # timm's own addition to Cadene's file
        return Habits("Cadene", settings)
    if "stage1.0.excitation.0.weight" in shapes:
        return Habits("weiaicunzai", {"squeeze_relu": "yes"})
    inner, outer = (shapes.get(f"layer1.0.conv{n}.weight", ()) for n in (1, 3))
    if inner and inner[:1] == outer[:1] and shapes.get("conv1.weight", ())[2:] == (3, 3):
        # a RegNet in ResNet's names: its bottlenecks do not widen
        return Habits("kuangliu", {"strides": "1,1,2,2"})
    first = shapes.get("features.stage1.unit1.body.conv2.conv.weight", (0, 1))
    if first[0] == first[1] and "features.stage1.unit1.body.conv3.conv.weight" in shapes:
        # its resnet50 strides in the 1x1, its resnet50b in the 3x3, under the same names
        return Habits("pytorchcv", {"stride": "1x1"})
    return Habits()
