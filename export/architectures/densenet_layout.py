"""All that varies between DenseNets for small images."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DenseLayout:
    """All of a network but its head.

    Attributes:
        stem: channels of the first convolution; normed: whether a norm and a pool follow it.
        counts: dense layers in each block.
        growth: channels that each adds; inner: those of its 1x1 convolution, 0 for none.
        transitions: channels that come out of each.
    """

    stem: int
    normed: bool
    counts: tuple[int, ...]
    growth: int
    inner: int
    transitions: tuple[int, ...]

    @property
    def entering(self) -> tuple[int, ...]:
        """Channels that enter each block."""
        return (self.stem, *self.transitions)

    @property
    def features(self) -> int:
        """Channels that leave the last block."""
        return self.entering[-1] + self.counts[-1] * self.growth

    @property
    def depth(self) -> int:
        """Convolutions and the linear layer, as the paper counts."""
        return sum(self.counts) * (2 if self.inner else 1) + len(self.transitions) + 2
