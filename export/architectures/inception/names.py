"""Names of networks whose authors agree on all but the head's."""

from resdeploy.export.architectures.family import translate_head
from resdeploy.export.architectures.units import Shapes


def translate_head_only(shapes: Shapes) -> dict[str, str]:
    """{torchvision's name: the file's}: the head is called `fc`, all else stays."""
    names = {name: name for name in shapes}
    for ours, name in translate_head(shapes, "fc").items():
        names.pop(name, None)
        names[ours] = name
    return names
