"""All that varies between Xceptions, as far as their files tell."""

from dataclasses import dataclass


@dataclass(frozen=True)
class XceptionBlock:
    """Channels in, then those of each separable convolution.

    `projected` says whether a 1x1 convolution is on the shortcut.
    """

    inputs: int
    widths: tuple[int, ...]
    projected: bool

    def places(self, *, first: bool) -> tuple[int, ...]:
        """Indices of its separable convolutions in `rep`; the first block starts without ReLU."""
        return tuple(3 * index + (not first) for index in range(len(self.widths)))


@dataclass(frozen=True)
class XceptionLayout:
    """Widths of the stem, of the blocks, and of the separable convolutions at the end."""

    stem: tuple[int, int]
    blocks: tuple[XceptionBlock, ...]
    last: tuple[int, int]
