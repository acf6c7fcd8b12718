"""ResNet, wide ResNet and ResNeXt of any depth, width and cardinality, and their usual variants.

    stem 7x7/2, or three 3x3 → max pool/2 → layer1 … layerN → global average → fc

Read from the shapes, W(x) being the shape of a weight (out, in per group, kernel, kernel):

    blocks per stage   the number of names layerS.B
    block              bottleneck where there is a conv3, else basic
    groups             width of conv2 over its input channels per group: W(conv2)[0] / W(conv2)[1]
    base width         W(layer1.0.conv2)[0] / groups

He et al., arXiv:1512.03385; Xie et al., arXiv:1611.05431; Zagoruyko and Komodakis,
arXiv:1605.07146; squeeze and excitation, arXiv:1709.01507; deep stem and pooled shortcuts
(ResNet-C and -D), He et al., arXiv:1812.01187. Torchvision strides in the 3x3 convolution of a
bottleneck (Goyal et al., arXiv:1706.02677, "v1.5"), the Caffe original in the 1x1: weights are the
same, so it is assumed.
"""

from dataclasses import replace

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Head, Network
from resdeploy.export.architectures.residual import (
    DEEP_STEM,
    Block,
    Conv,
    Residual,
    read_residual,
)
from resdeploy.export.architectures.residual_names import STEMS, habits, translate
from resdeploy.export.architectures.residual_network import residual_network
from resdeploy.export.architectures.residual_order import by_position
from resdeploy.export.architectures.units import Shapes

_PLANES = (64, 128, 256, 512)
_EXPANSION = 4
_STEM = (Conv(64, 3, 1, 7),)
# name -> bottleneck, blocks per stage, groups, base width
_TORCHVISION: dict[str, tuple[bool, tuple[int, ...], int, int]] = {
    "resnet18": (False, (2, 2, 2, 2), 1, 64),
    "resnet34": (False, (3, 4, 6, 3), 1, 64),
    "resnet50": (True, (3, 4, 6, 3), 1, 64),
    "resnet101": (True, (3, 4, 23, 3), 1, 64),
    "resnet152": (True, (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": (True, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": (True, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": (True, (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": (True, (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": (True, (3, 4, 23, 3), 1, 128),
}


def _usual(bottleneck: bool, counts: tuple[int, ...], groups: int, base_width: int) -> Residual:
    """The stages as torchvision builds them."""
    stages: list[tuple[Block, ...]] = []
    inputs = _STEM[0].out
    for stage, count in enumerate(counts):
        planes = _PLANES[0] * 2**stage
        blocks = []
        for index in range(count):
            width = planes * base_width // 64 * groups
            out = planes * (_EXPANSION if bottleneck else 1)
            convs: tuple[Conv, ...]
            if bottleneck:
                inner = Conv(width, width, groups, 3)
                convs = (Conv(width, inputs, 1, 1), inner, Conv(out, width, 1, 1))
            else:
                convs = (Conv(out, inputs, 1, 3), Conv(out, out, 1, 3))
            projects = index == 0 and out != inputs
            blocks.append(Block(convs, Conv(out, inputs, 1, 1) if projects else None))
            inputs = out
        stages.append(tuple(blocks))
    return Residual(_STEM, tuple(stages))


def _read(shapes: Shapes) -> Network | None:
    spec = read_residual(shapes)
    if spec is None or spec.small_stem:
        return None
    return _network(spec, network.read_head(shapes, "fc"))


def _named(name: str, head: Head) -> Network | None:
    usual = _TORCHVISION.get(name)
    return None if usual is None else _network(_usual(*usual), head)


def _network(spec: Residual, head: Head) -> Network:
    return residual_network(_name(spec), spec, head)


def _name(spec: Residual) -> str:
    """Torchvision's name where it has one, else what differs from the nearest usual network."""
    plain = replace(
        spec,
        stem=_STEM if len(spec.stem) == len(DEEP_STEM) else spec.stem,
        stages=tuple(tuple(_plain(block) for block in stage) for stage in spec.stages),
        pooled_shortcut=False,
    )
    block = spec.stages[0][0]
    attention = "se_" if block.squeeze else "eca_" if block.local_kernel else ""
    stem = "" if len(spec.stem) == 1 else "d" if spec.pooled_shortcut else "c"
    for name, usual in _TORCHVISION.items():
        if _same_widths(plain, _usual(*usual)):
            return f"{attention}{name}{stem}"
    counts = "-".join(str(count) for count in spec.counts)
    inner = block.convs[1]
    kind = f"basic {counts}"
    if spec.bottleneck:
        base = inner.out // inner.groups
        kind = f"{counts}, {inner.groups}x{base}d"
        if (inner.groups, base) == (1, _PLANES[0]):
            kind = f"bottleneck {counts}"
    if plain != _usual(spec.bottleneck, spec.counts, inner.groups, inner.out // inner.groups):
        outs = [stage[-1].out for stage in spec.stages]
        if outs != [planes * (_EXPANSION if spec.bottleneck else 1) for planes in _PLANES]:
            kind += f", {'-'.join(map(str, outs))} wide"
    return f"{attention}resnet{stem}({kind})"


def _plain(block: Block) -> Block:
    return replace(block, squeeze=0, local_kernel=0)


def _same_widths(spec: Residual, usual: Residual) -> bool:
    """Whether they agree but for the inputs of the first block, which follow the stem."""
    if spec.stem != usual.stem and spec.stages[0][0].inputs == usual.stages[0][0].inputs:
        return False
    first, other = spec.stages[0][0], usual.stages[0][0]
    if first.inputs != other.inputs:
        convs = (replace(first.convs[0], inputs=other.inputs), *first.convs[1:])
        projection = other.projection
        stages = ((Block(convs, projection), *spec.stages[0][1:]), *spec.stages[1:])
        return stages == usual.stages
    return spec.stages == usual.stages


FAMILY = Family(
    name="resnet",
    stems=STEMS,
    translate=translate,
    read=_read,
    named=_named,
    references=("resnet18", "resnet50"),
    by_position=by_position,
    habits=habits,
)
