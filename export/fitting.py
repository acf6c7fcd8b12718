"""Finds the known architecture whose names and shapes are exactly those of a checkpoint.

Every family (`architectures`) reads the shapes as far as it can and says what the network it sees
would have. Counters and profiling marks are no part of the comparison, and beside a removed prefix
neither are tensors of fewer than two dimensions, such as the class weights of a loss.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from resdeploy.export import dialects
from resdeploy.export.architectures import FAMILIES
from resdeploy.export.architectures.network import Family, Head, Linear, Network, Shapes

# No part of any network's function: batch norm's counter, what the profiler thop leaves behind,
# and AveragedModel's counter.
_COUNTERS = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")
_DIFFERENCES_SHOWN = 3


@dataclass(frozen=True)
class Fit:
    """One reading of a checkpoint.

    Attributes:
        prefix: what was removed from the names.
        names: torchvision's name -> the checkpoint's own name.
        differences: "NAME … " sentences where network and checkpoint disagree; () for a fit.
        shared: how many tensors they agree on.
        ignored: the checkpoint's names that are no part of the network's function.
    """

    prefix: str
    family: Family
    network: Network
    names: dict[str, str]
    differences: tuple[str, ...]
    shared: int
    ignored: tuple[str, ...]


def fit(shapes: Shapes) -> Fit | None:
    """The reading of `shapes` under which a known architecture has exactly these tensors, or None.

    `shapes` maps names as they stand in the state_dict to shapes. The shortest prefix wins.
    """
    return next((reading for reading in readings(shapes) if not reading.differences), None)


def readings(shapes: Shapes) -> Iterable[Fit]:
    """Every family's reading under every possible prefix, the shortest prefix first."""
    stems = {stem for family in FAMILIES for stem in family.stems}
    for prefix in dialects.candidate_prefixes(shapes, stems):
        for family in FAMILIES:
            names = _translated(family, prefix, shapes)
            network = family.read({name: shapes[own] for name, own in names.items()})
            if network is not None:
                yield _compare(family, network, prefix, names, shapes)


def _translated(family: Family, prefix: str, shapes: Shapes) -> dict[str, str]:
    inside = {dialects.without_prefix(name, prefix): name for name in shapes}
    names = family.translate({name: shapes[own] for name, own in inside.items()})
    return {canonical: inside[name] for canonical, name in names.items()}


def _compare(
    family: Family, network: Network, prefix: str, names: dict[str, str], shapes: Shapes
) -> Fit:
    differences: list[str] = []
    ignored: list[str] = []
    for canonical, shape in network.expected.items():
        own = names.get(canonical)
        if own is None:
            differences.append(f"{prefix}{canonical} {shape} is missing")
        elif shapes[own] != shape:
            differences.append(f"{own} is {shapes[own]}, expected {shape}")
    shared = len(network.expected) - len(differences)
    for canonical, own in names.items():
        if canonical in network.expected or own.endswith("num_batches_tracked"):
            continue
        beside = not own.startswith(prefix) and len(shapes[own]) < 2
        if own.endswith(_COUNTERS) or beside:
            ignored.append(own)
        else:
            differences.append(f"{own} {shapes[own]} has no place in it")
    for own in shapes.keys() - names.values():
        differences.append(f"{own} means the same as another tensor")
    return Fit(prefix, family, network, names, tuple(differences), shared, tuple(ignored))


def readings_as(arch: str, shapes: Shapes) -> Iterable[Fit]:
    """Readings of `shapes` as the network called `arch`, with whatever head they have."""
    for family in FAMILIES:
        for prefix in dialects.candidate_prefixes(shapes, family.stems):
            names = _translated(family, prefix, shapes)
            read = family.read({name: shapes[own] for name, own in names.items()})
            network = family.named(arch, read.head if read else _any_head(shapes))
            if network is not None:
                yield _compare(family, network, prefix, names, shapes)


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


def told_differences(reading: Fit) -> str:
    """The first differences and how many more there are, as one phrase."""
    shown = ", ".join(reading.differences[:_DIFFERENCES_SHOWN])
    more = len(reading.differences) - _DIFFERENCES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
