"""ResNets for small images: a stem of at most 3x3 without pooling, then any number of stages.

    conv1 3x3/1 → layer1 … layerN → global average → fc

Three stages of basic blocks are the CIFAR networks of He et al. (arXiv:1512.03385, §4.2), depth
6n + 2 for n blocks per stage; four stages are kuangliu's, ResNet-18 to -152 for 32x32 images; three
stages of grouped bottlenecks are the CIFAR ResNeXts of Xie et al. (arXiv:1611.05431).
A stage that changes the width has either a 1x1 convolution on the shortcut (option B) or none
(option A): every second pixel, with zero channels added. Weights do not tell on which side they are
added; by default half on each, as in the implementation whose checkpoints are in circulation. Nor
do they tell a pool: some networks keep torchvision's after a 3x3 stem.
"""

import re
from dataclasses import replace

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Family, Head, Network
from resdeploy.export.architectures.residual import (
    Block,
    Conv,
    Residual,
    read_residual,
)
from resdeploy.export.architectures.residual_names import STEMS, habits, translate
from resdeploy.export.architectures.residual_network import residual_network
from resdeploy.export.architectures.residual_order import by_position
from resdeploy.export.architectures.units import Shapes

# What kuangliu's four-stage networks of the ImageNet depths are called.
_FOUR_STAGES: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}


def _read(shapes: Shapes) -> Network | None:
    spec = read_residual(shapes)
    if spec is None or not spec.small_stem:
        return None
    return _network(spec, network.read_head(shapes, "fc"))


def _named(name: str, head: Head) -> Network | None:
    match = re.fullmatch(r"cifar_resnet(\d+)", name)
    n, rest = divmod(int(match[1]) - 2, 6) if match else (0, 0)
    if n < 1 or rest:
        return None
    stages = []
    inputs = 16
    for planes in (16, 32, 64):
        blocks = []
        for _ in range(n):
            blocks.append(Block((Conv(planes, inputs, 1, 3), Conv(planes, planes, 1, 3))))
            inputs = planes
        stages.append(tuple(blocks))
    return _network(Residual((Conv(16, 3, 1, 3),), tuple(stages)), head)


def _network(spec: Residual, head: Head) -> Network:
    made = residual_network(_name(spec), spec, head)
    return replace(made, input_size_px=32, preprocess="cifar")


def _name(spec: Residual) -> str:
    counts, block = spec.counts, spec.stages[0][0]
    stem, expansion = spec.stem[0].out, 4 if spec.bottleneck else 1
    widths = [stage[-1].out // expansion for stage in spec.stages]
    inner = block.convs[1]
    usual = widths == [stem * 2**stage for stage in range(len(widths))]
    plain = inner.groups == 1 and inner.out == widths[0] and not block.squeeze
    if usual and plain and stem == 16 and len(counts) == 3 and len(set(counts)) == 1:
        return f"cifar_resnet{counts[0] * (9 if spec.bottleneck else 6) + 2}"
    depth = _FOUR_STAGES.get((spec.bottleneck, counts))
    if usual and plain and stem == 64 and depth:
        return f"resnet{depth}_32px"
    if inner.groups > 1 and len(set(counts)) == 1:
        depth = counts[0] * len(counts) * 3 + 2
        return f"cifar_resnext{depth}_{inner.groups}x{inner.out // inner.groups}d"
    kind = "bottleneck" if spec.bottleneck else "basic"
    kind = f"se {kind}" if block.squeeze else kind
    told = "-".join(str(planes) for planes in widths)
    return f"cifar_resnet({kind} {'-'.join(map(str, counts))}, {told} wide)"


FAMILY = Family(
    name="cifar_resnet",
    stems=STEMS,
    translate=translate,
    read=_read,
    named=_named,
    references=("cifar_resnet20",),
    by_position=by_position,
    habits=habits,
)
