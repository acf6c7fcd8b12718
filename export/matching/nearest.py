"""Where nothing fits: the network that comes nearest, and what keeps it from fitting."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from resdeploy.export.architectures import FAMILIES
from resdeploy.export.architectures.family import Family, Head, Linear, Network
from resdeploy.export.architectures.units import Shape, Shapes, squeezed, units_of
from resdeploy.export.matching.fitting import Fit, compare, read_by_families, translated
from resdeploy.export.matching.prefixes import candidate_prefixes

_DIFFERENCES_SHOWN = 3


def readings_as(arch: str, shapes: Shapes) -> Iterable[Fit]:
    """Readings of `shapes` as the network called `arch`, with whatever head they have."""
    for family in FAMILIES:
        yield from _readings_of(family, arch, shapes)


def every_reading(shapes: Shapes) -> Iterable[Fit]:
    """Readings of `shapes` as whatever they speak of, and as what each family is compared by.

    Only the family itself is asked for the latter: one that asks a library's constructor would
    load it.
    """
    stems = {stem for family in FAMILIES for stem in family.stems}
    for prefix in candidate_prefixes(shapes, stems):
        for family, names, read in read_by_families(prefix, shapes):
            head = read.head if read else _any_head(shapes)
            for network in (read, *(family.named(name, head) for name in family.references)):
                if network is not None:
                    yield compare(family, network, prefix, names, shapes)


def _readings_of(family: Family, name: str, shapes: Shapes) -> Iterable[Fit]:
    for prefix in candidate_prefixes(shapes, family.stems):
        names = translated(family, prefix, shapes)
        read = family.read({canonical: shapes[own] for canonical, own in names.items()})
        network = family.named(name, read.head if read else _any_head(shapes))
        if network is not None:
            yield compare(family, network, prefix, names, shapes)


def _any_head(shapes: Shapes) -> Head:
    """The last matrix as a bare linear layer, to have a number of classes to compare with."""
    matrices = [shape for shape in shapes.values() if len(shape) == 2]
    return (Linear("", matrices[-1][1], matrices[-1][0], True),) if matrices else ()


def nearest(candidates: Iterable[Fit], shapes: Shapes) -> Fit:
    """The candidate that shares most tensors with the checkpoint, then that is most its size."""
    return max(
        candidates,
        key=lambda fit: (fit.shared, -abs(len(fit.network.expected) - len(shapes))),
    )


@dataclass(frozen=True)
class Alike:
    """How many layers of the checkpoint, out of all, have a counterpart of their shape."""

    network: Network
    layers: int
    of: int


def nearest_by_structure(candidates: Iterable[Fit], shapes: Shapes) -> Alike:
    """The candidate that most of the checkpoint's layers could belong to, names left aside."""
    own = _layer_shapes(shapes)
    found = [
        Alike(fit.network, (own & _layer_shapes(fit.network.expected)).total(), own.total())
        for fit in candidates
    ]
    return max(found, key=lambda alike: alike.layers)


def _layer_shapes(shapes: Shapes) -> Counter[Shape]:
    units = (unit for unit in units_of(shapes) if unit.kind in ("conv", "linear"))
    return Counter(squeezed(unit.shape) for unit in units)


def told_differences(reading: Fit) -> str:
    """The first differences and how many more there are, as one phrase."""
    shown = ", ".join(reading.differences[:_DIFFERENCES_SHOWN])
    more = len(reading.differences) - _DIFFERENCES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
