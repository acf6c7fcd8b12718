"""What authors call the layers of a pre-activation ResNet, and what their shortcuts read."""

import re

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.units import Shapes

# By index in a Sequential of norm, ReLU, convolution, …
_RESIDUAL = {"0": "bn1", "2": "conv1", "3": "bn2", "5": "conv2", "6": "bn3", "8": "conv3"}
# The same with dropout before the second convolution.
_WIDE = {"0": "bn1", "2": "conv1", "3": "bn2", "6": "conv2"}

BY_ORIGIN = (
    (r"(^|\.)layer\d+\.\d+\.shortcut\.0\.", "kuangliu", True),
    (r"(^|\.)layer\d+\.\d+\.downsample\.0\.", "bearpaw", False),
    (r"(^|\.)stages\.\d+\.blocks\.\d+\.downsample\.conv\.", "timm", True),
    (r"(^|\.)stage\d+\.\d+\.shortcut\.", "weiaicunzai", False),
    (r"(^|\.)conv\d\.\d+\.residual\.", "weiaicunzai", False),
    (r"(^|\.)convShortcut\.", "xternalz", True),
    (r"(^|\.)stage\d+\.block\d+\.shortcut\.conv\.", "hysts", True),
    (r"(^|\.)stage\d+\.unit\d+\.identity_conv\.", "pytorchcv", True),
    (r"(^|\.)layer\.\d+\.block\.\d+\.batchnorm_0\.", "DeepMind", True),
)
"""(a name that only they use, whose it is, whether the shortcut reads activated values)"""


def translate_preact(shapes: Shapes) -> dict[str, str]:
    """{our name: the file's name}; names that are nobody's stay."""
    wide = any(re.match(r"block1\.layer\.0\.", name) for name in shapes)
    names = {}
    for name in shapes:
        module, _, part = name.rpartition(".")
        names[f"{_module(module, wide)}.{part}" if module else part] = name
    for ours, name in network.translate_head(shapes, "fc").items():
        names.pop(f"{_module(name.rpartition('.')[0], wide)}.{name.rpartition('.')[2]}", None)
        names[ours] = name
    for part in ("weight", "bias"):
        if f"head.fc.{part}" in shapes:
            names.pop(f"fc.fc.{part}", None)
            names[f"fc.{part}"] = f"head.fc.{part}"
    return names


def _module(name: str, wide: bool) -> str:
    if match := re.fullmatch(r"layer(\d+)\.(\d+)\.(?:shortcut|downsample)\.0", name):
        return f"layer{match[1]}.{match[2]}.shortcut"
    if match := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)", name):
        part = match[3].replace("norm", "bn").replace("downsample.conv", "shortcut")
        return f"layer{int(match[1]) + 1}.{match[2]}.{part}"
    if match := re.fullmatch(r"stage(\d+)\.block(\d+)\.(.+)", name):
        return (
            f"layer{match[1]}.{int(match[2]) - 1}.{match[3].replace('shortcut.conv', 'shortcut')}"
        )
    if match := re.fullmatch(r"stage(\d+)\.(\d+)\.residual\.(\d+)", name):
        return f"layer{match[1]}.{match[2]}.{_RESIDUAL.get(match[3], match[3])}"
    if match := re.fullmatch(r"stage(\d+)\.(\d+)\.shortcut", name):
        return f"layer{match[1]}.{match[2]}.shortcut"
    if match := re.fullmatch(r"conv(\d)\.(\d+)\.residual\.(\d+)", name):
        return f"layer{int(match[1]) - 1}.{match[2]}.{_WIDE.get(match[3], match[3])}"
    if match := re.fullmatch(r"conv(\d)\.(\d+)\.shortcut\.0", name):
        return f"layer{int(match[1]) - 1}.{match[2]}.shortcut"
    if match := re.fullmatch(r"block(\d)\.layer\.(\d+)\.(.+)", name):
        part = match[3].replace("convShortcut", "shortcut")
        return f"layer{match[1]}.{match[2]}.{part}"
    return _STEM_AND_END.get(name, "bn" if wide and name == "bn1" else name)


_STEM_AND_END = {
    "stem.conv": "conv1",
    "pre.0": "conv1",
    "pre.1": "stem_norm",
    "init_conv": "conv1",
    "conv": "conv1",
    "norm": "bn",
}
