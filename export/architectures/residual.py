"""Residual stages, read from the shapes of their convolutions.

A block is its convolutions (two, or three for a bottleneck), perhaps a channel attention and
perhaps a 1x1 convolution on the shortcut. Nothing else about it is fixed: widths, kernels and
groups are those of the weights, which also tell how many stages there are and of how many blocks.

    groups of a convolution = channels that come in / W[1], W being its weight's shape
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Assumption, choice, conv_bn
from resdeploy.export.architectures.units import Shape, Shapes

BLOCK_CONVS = ("conv1", "conv2", "conv3")
# timm's names of a deep stem, which torchvision does not have: (convolution, norm).
DEEP_STEM = (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))
_LARGE_STEM = 5
PADDED_SHORTCUT = choice(
    "shortcut_pad",
    ("around", "after"),
    "a shortcut without weights takes every second pixel and adds zero channels {} its own",
)


@dataclass(frozen=True)
class Conv:
    """A convolution: channels out, channels in, groups and kernel."""

    out: int
    inputs: int
    groups: int
    kernel: int

    @property
    def shape(self) -> Shape:
        """Of its weight."""
        return self.out, self.inputs // self.groups, self.kernel, self.kernel


@dataclass(frozen=True)
class Block:
    """One residual block.

    Attributes:
        convs: two 3x3 convolutions, or 1x1, 3x3, 1x1.
        projection: the 1x1 convolution on the shortcut, or None.
        squeeze: inner width of squeeze and excitation, 0 for none.
        local_kernel: kernel of efficient channel attention (ECA), 0 for none.
    """

    convs: tuple[Conv, ...]
    projection: Conv | None = None
    squeeze: int = 0
    local_kernel: int = 0

    @property
    def out(self) -> int:
        """Channels that come out."""
        return self.convs[-1].out

    @property
    def inputs(self) -> int:
        """Channels that come in."""
        return self.convs[0].inputs


@dataclass(frozen=True)
class Residual:
    """A residual network up to its pooled features.

    Attributes:
        stem: one convolution, or the three of a deep stem.
        stages: the blocks of each stage.
        pooled_shortcut: a strided shortcut is an average pool, then a 1x1 convolution (ResNet-D).
        pool: the strided convolution that stands for the max pool (ResNet-RS), or None.
    """

    stem: tuple[Conv, ...]
    stages: tuple[tuple[Block, ...], ...]
    pooled_shortcut: bool = False
    pool: Conv | None = None

    @property
    def features(self) -> int:
        """Channels that come out of the last stage."""
        return self.stages[-1][-1].out

    @property
    def bottleneck(self) -> bool:
        """Three convolutions to a block."""
        return len(self.stages[0][0].convs) == len(BLOCK_CONVS)

    @property
    def small_stem(self) -> bool:
        """One convolution of at most 3x3: a network for small images."""
        return len(self.stem) == 1 and self.stem[0].kernel < _LARGE_STEM

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks of all stages."""
        return tuple(block for stage in self.stages for block in stage)

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks per stage."""
        return tuple(len(stage) for stage in self.stages)


def read_residual(shapes: Shapes) -> Residual | None:
    """The network under torchvision's names, or None if there is no stem and no block.

    Generous: what comes in is taken to be what came out before, so a weight that does not agree
    differs from `residual_shapes` of the result.
    """
    deep = network.is_conv(shapes, "conv1.0.weight")
    names = [conv for conv, _ in DEEP_STEM] if deep else ["conv1"]
    stem: list[Conv] = []
    inputs = 3
    for name in names:
        if not network.is_conv(shapes, f"{name}.weight"):
            return None
        stem.append(_conv(shapes, name, inputs))
        inputs = stem[-1].out
    stages: list[tuple[Block, ...]] = []
    pooled, pool = False, None
    if network.is_conv(shapes, "maxpool.0.weight"):
        pool = _conv(shapes, "maxpool.0", inputs)
        inputs = pool.out
    while blocks := tuple(_blocks(shapes, f"layer{len(stages) + 1}", inputs)):
        stages.append(blocks)
        pooled |= network.is_conv(shapes, f"layer{len(stages)}.0.downsample.1.weight")
        inputs = blocks[-1].out
    spec = Residual(tuple(stem), tuple(stages), pooled, pool)
    return spec if stages and not any(_narrows(block) for block in spec.blocks) else None


def _blocks(shapes: Shapes, stage: str, inputs: int) -> Iterator[Block]:
    count = 0
    while network.is_conv(shapes, f"{(name := f'{stage}.{count}')}.conv1.weight"):
        if not network.is_conv(shapes, f"{name}.conv2.weight"):
            return
        block = _block(shapes, name, inputs, first=count == 0)
        yield block
        inputs, count = block.out, count + 1


def _block(shapes: Shapes, name: str, inputs: int, *, first: bool) -> Block:
    convs: list[Conv] = []
    width = inputs
    for part in BLOCK_CONVS:
        if network.is_conv(shapes, f"{name}.{part}.weight"):
            convs.append(_conv(shapes, f"{name}.{part}", width))
            width = convs[-1].out
    projection = None
    for index in (0, 1):
        if network.is_conv(shapes, f"{name}.downsample.{index}.weight"):
            given = _conv(shapes, f"{name}.downsample.{index}", inputs)
            projection = Conv(width, inputs, given.groups, given.kernel)
    if projection is None and not first:
        last = convs[-1]
        convs[-1] = Conv(inputs, last.inputs, last.groups, last.kernel)
    squeeze = shapes.get(f"{name}.se.fc1.weight", (0,))[0]
    local = shapes.get(f"{name}.se.conv.weight", (0,))[-1]
    return Block(tuple(convs), projection, squeeze, local)


def _conv(shapes: Shapes, name: str, inputs: int) -> Conv:
    out, channels, kernel, _ = shapes[f"{name}.weight"]
    divides = inputs % channels == 0 and out % (inputs // channels) == 0
    return Conv(out, inputs, inputs // channels if divides else 1, kernel)


def _narrows(block: Block) -> bool:
    """A shortcut without weights cannot narrow."""
    return block.projection is None and block.out < block.inputs


def residual_shapes(spec: Residual) -> Iterable[tuple[str, Shape]]:
    """Names and shapes of the stem and all stages, in the order of the layers."""
    names = DEEP_STEM if len(spec.stem) > 1 else (("conv1", "bn1"),)
    for (conv, norm), layer in zip(names, spec.stem, strict=True):
        yield from _conv_bn(conv, norm, layer)
    if spec.pool is not None:
        yield from _conv_bn("maxpool.0", "maxpool.1", spec.pool)
    for stage, blocks in enumerate(spec.stages, start=1):
        for index, block in enumerate(blocks):
            yield from _block_shapes(f"layer{stage}.{index}", block, spec.pooled_shortcut)


def _block_shapes(name: str, block: Block, pooled: bool) -> Iterable[tuple[str, Shape]]:
    for number, conv in enumerate(block.convs, start=1):
        yield from _conv_bn(f"{name}.conv{number}", f"{name}.bn{number}", conv)
    if block.squeeze:
        for layer, out, inputs in (
            ("fc1", block.squeeze, block.out),
            ("fc2", block.out, block.squeeze),
        ):
            yield f"{name}.se.{layer}.weight", (out, inputs, 1, 1)
            yield f"{name}.se.{layer}.bias", (out,)
    if block.local_kernel:
        yield f"{name}.se.conv.weight", (1, 1, block.local_kernel)
    if block.projection:
        first = 1 if pooled else 0
        names = f"{name}.downsample.{first}", f"{name}.downsample.{first + 1}"
        yield from _conv_bn(*names, block.projection)


def _conv_bn(conv: str, norm: str, layer: Conv) -> Iterable[tuple[str, Shape]]:
    return conv_bn(conv, norm, layer.out, layer.inputs // layer.groups, layer.kernel)


def dilation(spec: Residual) -> Assumption:
    """Which stages dilate instead of striding; "yes" is all from the third on."""
    last = len(spec.stages)
    values = ("no", "yes", f"layer{last}") if last > 3 else ("no", "yes")
    stage = f"layer[2-{max(2, last)}]"
    pattern = f"no|yes|{stage}(,{stage})*"
    return Assumption("dilated", values, pattern, network.DILATED.sentence)


def residual_assumptions(spec: Residual) -> tuple[Assumption, ...]:
    """What the weights of a residual network do not tell, but for what its head leaves open."""
    usual = ",".join("1" if stage == 0 else "2" for stage in range(len(spec.stages)))
    found = [network.strides(usual), network.activation("relu"), network.BN_EPS]
    if spec.bottleneck:
        sentence = "a bottleneck that halves the resolution does so in its {} convolution"
        found.insert(0, choice("stride", ("3x3", "1x1"), sentence))
    stem, pool = (("1", "2"), ("no", "yes")) if spec.small_stem else (("2", "1"), ("yes", "no"))
    found.append(choice("stem_stride", stem, "the first convolution has stride {}"))
    if spec.pool is None:
        found.append(choice("pool", pool, "max pool after the stem: {}"))
        if not spec.small_stem:
            sentence = "the max pool pads by {} (0: Caffe's, which rounds the size up)"
            found.append(choice("pool_padding", ("1", "0"), sentence))
    if any(block.projection is None and block.out != block.inputs for block in spec.blocks):
        found.insert(0, PADDED_SHORTCUT)
    if spec.stages[0][0].squeeze:
        sentence = "a ReLU stands before squeeze and excitation: {}"
        found.append(choice("squeeze_relu", ("no", "yes"), sentence))
    if len(spec.stem) > 1:
        pooled = ("yes", "no") if spec.pooled_shortcut else ("no", "yes")
        sentence = "strided shortcuts begin with an average pool: {}"
        found.append(choice("shortcut_pool", pooled, sentence))
    return tuple(found)


def residual_evidence(spec: Residual) -> tuple[str, ...]:
    """How `spec` was read, as sentences."""
    counts = "-".join(str(count) for count in spec.counts)
    told = []
    if len(spec.stem) > 1:
        told.append(f"the stem is {len(spec.stem)} convolutions of 3x3, so a deep one")
    elif spec.small_stem:
        stem = spec.stem[0]
        told.append(
            f"the first convolution is {stem.kernel}x{stem.kernel} with {stem.out} channels: "
            "no pooling after it"
        )
    block = spec.stages[0][0]
    if spec.bottleneck:
        inner = block.convs[1]
        told.append(f"bottleneck blocks (there is a conv3), {counts} per stage")
        told.append(
            f"layer1.0.conv2 is {inner.out} wide with {inner.inputs // inner.groups} input "
            f"channels per group: {inner.groups} group{'s' if inner.groups > 1 else ''}, "
            f"base width {inner.out // inner.groups}"
        )
    else:
        told.append(f"basic blocks (two 3x3 convolutions), {counts} per stage")
    if block.squeeze:
        told.append(f"squeeze and excitation, {block.squeeze} wide in layer1.0")
    return tuple(told)
