"""A network's layers as a word of one letter each, for families of a fixed order of layers.

N a batch norm (n one of 3 channels), C a 3x3 convolution, D a depthwise one, P a 1x1, K any other,
L a linear layer, ? anything else. A regular expression over the word then says which layer is
which, whatever the names; whether the widths agree is seen by comparing shapes afterwards.
"""

from collections.abc import Sequence

from resdeploy.export.architectures.units import Unit


def word_of(units: Sequence[Unit]) -> str:
    """One letter per layer, in order."""
    return "".join(map(_letter, units))


def _letter(unit: Unit) -> str:
    if unit.kind == "norm":
        return "n" if unit.shape == (3,) else "N"
    if unit.kind == "linear":
        return "L"
    if unit.kind != "conv":
        return "?"
    out, inputs, *kernel = unit.shape
    if kernel == [1, 1]:
        return "P"
    if inputs == 1 and out > 1:
        return "D"
    return "C" if kernel == [3, 3] else "K"
