"""All that varies between VGGs, and what every AlexNet has."""

from collections.abc import Iterable
from dataclasses import dataclass

from resdeploy.export.architectures.units import Shape

ALEXNET_PLACES = (0, 3, 6, 8, 10)
"""Indices of the convolutions in `features`."""

ALEXNET_KERNELS = (11, 5, 3, 3, 3)


@dataclass(frozen=True)
class VggLayout:
    """Widths of the convolutions by stage, whether they have norms, and pixels left for the head.

    `head_shapes` are the weights of the linear layers as the file has them, convolutions or not.
    """

    stages: tuple[tuple[int, ...], ...]
    normed: bool
    side: int
    head_shapes: tuple[Shape, ...]

    def places(self) -> Iterable[tuple[int, int, int]]:
        """(index in `features`, channels in, channels out) of every convolution."""
        place, inputs = 0, 3
        for widths in self.stages:
            for out in widths:
                yield place, inputs, out
                place, inputs = place + (3 if self.normed else 2), out
            place += 1
