"""How far the layers of an INT8 graph are from the float graph, and which one to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

# a sound layer's own signal is more than this above its own noise
UNSOUND_DB = 5.0


@dataclass(frozen=True)
class LayerError:
    """One layer's errors in dB (larger is better), measured by whoever has onnx.

    `whole_db` is the error of the graph up to and including this layer, `own_db` that of the layer
    given exact input. `share` is its part of the own noise-to-signal ratios of all layers that are
    not excused. `excused`: it looks unsound alone, but the graph is sound there or after it.
    """

    name: str
    op_type: str
    whole_db: float
    own_db: float
    share: float
    excused: bool


def culprit(errors: Sequence[LayerError]) -> LayerError:
    """The layer to look at.

    The worst of the first unsound layers in a row that nothing excuses; in a sound graph the layer
    with the largest share of all own noise-to-signal ratios.
    """
    unsound = [error.own_db < UNSOUND_DB and not error.excused for error in errors]
    if not any(unsound):
        return max(errors, key=lambda error: error.share)
    first = unsound.index(True)
    row = takewhile(lambda pair: pair[1], zip(errors[first:], unsound[first:], strict=True))
    return min((error for error, _ in row), key=lambda error: error.own_db)
