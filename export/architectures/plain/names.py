"""What authors call the layers of AlexNet and VGG, under torchvision's names."""

import re
from collections.abc import Mapping

from resdeploy.export.architectures.units import Shapes


def translate_plain(shapes: Shapes, heads: Mapping[str, str]) -> dict[str, str]:
    """{torchvision's name: the file's}; `heads` maps other names of the linear layers."""
    names = {}
    for name in shapes:
        module, _, part = name.rpartition(".")
        ours = heads.get(module, re.sub(r"^_features\.", "features.", module))
        names[f"{ours}.{part}"] = name
    return names
