"""All that varies between pre-activation ResNets, as far as their files tell."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PreactBlock:
    """Widths of one block: into it, inside, out of it.

    Attributes:
        bottleneck: 1x1, 3x3, 1x1 convolutions rather than two 3x3.
        inside: channels between its convolutions; groups: of its 3x3.
        projected: whether a convolution is on the shortcut; normed: whether a norm is at its end.
    """

    bottleneck: bool
    inputs: int
    inside: int
    out: int
    groups: int
    projected: bool
    normed: bool


@dataclass(frozen=True)
class PreactLayout:
    """All of a network but its head; `kernel` is that of the first convolution."""

    stem: int
    kernel: int
    input_norm: bool
    stem_norm: bool
    last_norm: bool
    stages: tuple[tuple[PreactBlock, ...], ...]
