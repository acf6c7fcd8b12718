"""Finds the known architecture whose layers are exactly those of a checkpoint.

Every family (`architectures`) reads names and shapes as far as it can and says what the network it
sees would have. A reading by names comes first; where none fits, the layers are taken in the order
of the file, whatever they are called, and must then speak of one network only.

Counters and profiling marks are no part of the comparison, and beside a removed prefix neither are
tensors of fewer than two dimensions, such as the class weights of a loss. Where nothing fits the
whole file, a network under a prefix is looked for, whose surroundings are then named as ignored:
the encoder of a detector or of a segmentation network.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from resdeploy.export.architectures import FAMILIES
from resdeploy.export.architectures.family import (
    EVERY_NETWORK,
    NO_HABITS,
    Family,
    Habits,
    Network,
)
from resdeploy.export.architectures.units import COUNTERS, Shape, Shapes, Unit, squeezed, units_of
from resdeploy.export.matching.prefixes import (
    by_number,
    candidate_prefixes,
    scopes,
    shared_prefix,
    without_prefix,
)

_HEAD_CONVOLUTIONS = 2  # as MobileNetV3 may end


@dataclass(frozen=True)
class Fit:
    """One reading of a checkpoint.

    Attributes:
        prefix: what was removed from the names.
        names: torchvision's name -> the checkpoint's own name.
        differences: "NAME … " sentences where network and checkpoint disagree; () for a fit.
        shared: how many tensors they agree on.
        ignored: the checkpoint's names that are no part of the network's function.
        biases: torchvision's names of convolution biases that the network usually lacks.
        surroundings: the checkpoint's names outside the prefix, where only an encoder was read.
    """

    prefix: str
    family: Family
    network: Network
    names: dict[str, str]
    differences: tuple[str, ...]
    shared: int
    ignored: tuple[str, ...]
    biases: tuple[str, ...] = ()
    matched_by: Literal["names", "structure"] = "names"
    habits: Habits = NO_HABITS
    surroundings: tuple[str, ...] = ()


def fit(shapes: Shapes) -> Fit | None:
    """The only reading of `shapes` that fits, or None where there is none or more than one."""
    found = fits(shapes)
    return found[0] if len(found) == 1 else None


def fits(shapes: Shapes) -> tuple[Fit, ...]:
    """The readings under which a known architecture has exactly these tensors.

    `shapes` maps names as they stand in the state_dict to shapes. By names the shortest prefix wins
    and there is at most one; by structure there may be several, which nothing tells apart.
    """
    return _fits(tuple(shapes.items()))


@lru_cache(maxsize=2)  # reading a checkpoint and identifying it ask the same, of thousands of names
def _fits(items: tuple[tuple[str, Shape], ...]) -> tuple[Fit, ...]:
    shapes = dict(items)
    shared = shared_prefix(shapes)
    whole = _first(readings(shapes)) or _distinct(_positioned(shapes, shared))
    if whole:
        return whole
    if sorted(shapes) == list(shapes):  # safetensors, for one, lists its tensors by name
        whole = _distinct(_positioned(by_number(shapes), shared))
        if whole:
            return whole
    parts = {
        prefix: {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
        for prefix in scopes(shapes)
    }
    for prefix, inside in parts.items():
        found = _first(_readings_under(prefix, inside))
        if found:
            return _surrounded(found, inside, shapes)
    for prefix, inside in parts.items():
        if _is_most_of(inside, shapes):
            found = _distinct(_positioned(inside, prefix))
            if found:
                return _surrounded(found, inside, shapes)
    return ()


def _surrounded(found: tuple[Fit, ...], inside: Shapes, shapes: Shapes) -> tuple[Fit, ...]:
    outside = tuple(name for name in shapes if name not in inside)
    return tuple(replace(reading, surroundings=outside) for reading in found)


def _is_most_of(inside: Shapes, shapes: Shapes) -> bool:
    """Whether most convolutions are inside, and around them is more than a classifier's head.

    Without names, fewer could be a part of any network, and one whose only other layers are linear
    or two 1x1 convolutions is a classifier that did not fit.
    """
    outside = [s[2:] for name, s in shapes.items() if len(s) == 4 and name not in inside]
    within = sum(len(shape) == 4 for shape in inside.values())
    spatial = any(kernel != (1, 1) for kernel in outside)
    return within > len(outside) and (spatial or len(outside) > _HEAD_CONVOLUTIONS)


def readings(shapes: Shapes) -> Iterable[Fit]:
    """Every family's reading by names under every possible prefix, the shortest prefix first."""
    stems = {stem for family in FAMILIES for stem in family.stems}
    for prefix in candidate_prefixes(shapes, stems):
        yield from _readings_under(prefix, shapes)


def _readings_under(prefix: str, shapes: Shapes) -> Iterable[Fit]:
    for family, names, network in read_by_families(prefix, shapes):
        if network is not None:
            yield compare(family, network, prefix, names, shapes)


def read_by_families(
    prefix: str, shapes: Shapes
) -> Iterable[tuple[Family, dict[str, str], Network | None]]:
    """Each family, its names for the tensors under a prefix, and the network it reads of them."""
    known: dict[Callable[[Shapes], dict[str, str]], dict[str, str]] = {}
    for family in FAMILIES:
        if family.translate not in known:
            known[family.translate] = translated(family, prefix, shapes)
        names = known[family.translate]
        yield family, names, family.read({name: shapes[own] for name, own in names.items()})


def _positioned(shapes: Shapes, prefix: str) -> Iterable[Fit]:
    """Every family's readings of the layers in their order, names left aside."""
    units = units_of(shapes)
    own = {unit.name: unit for unit in units}
    for family in FAMILIES:
        for modules in family.by_position(units):
            names = _tensors(modules, own)
            taken = set(names.values())
            names.update({name: name for name in shapes if name not in taken})
            network = family.read({name: shapes[own] for name, own in names.items()})
            if network is not None:
                yield compare(family, network, prefix, names, shapes, "structure")


def _tensors(modules: Mapping[str, str], own: Mapping[str, Unit]) -> dict[str, str]:
    return {
        f"{module}.{part}": tensor
        for module, name in modules.items()
        for part, tensor in own[name].parts.items()
    }


def _first(candidates: Iterable[Fit]) -> tuple[Fit, ...]:
    found = next((reading for reading in candidates if not reading.differences), None)
    return () if found is None else (found,)


def _distinct(candidates: Iterable[Fit]) -> tuple[Fit, ...]:
    """Each fit once; those that have a name, where other widths or depths would be without one.

    The layers of a RegNet could be those of a CIFAR ResNet of very odd widths, too.
    """
    kept: list[Fit] = []
    for reading in candidates:
        known = any(
            (reading.family.name, reading.network.name, reading.names)
            == (other.family.name, other.network.name, other.names)
            for other in kept
        )
        if not reading.differences and not known:
            kept.append(reading)
    named = [reading for reading in kept if "(" not in reading.network.name]
    return tuple(named or kept)


def translated(family: Family, prefix: str, shapes: Shapes) -> dict[str, str]:
    """{torchvision's name: the checkpoint's own} as `family` knows the names under `prefix`."""
    inside = {without_prefix(name, prefix): name for name in shapes}
    names = family.translate({name: shapes[own] for name, own in inside.items()})
    return {canonical: inside[name] for canonical, name in names.items()}


def compare(
    family: Family,
    network: Network,
    prefix: str,
    names: dict[str, str],
    shapes: Shapes,
    matched_by: Literal["names", "structure"] = "names",
) -> Fit:
    """Where `network` and the checkpoint agree and where they do not.

    Tensors without a place are looked for only where the network has all of its own.
    """
    differences: list[str] = []
    for canonical, shape in network.expected.items():
        own = names.get(canonical)
        if own is None:
            differences.append(f"{prefix}{canonical} {shape} is missing")
        elif squeezed(shapes[own]) != squeezed(shape):
            differences.append(f"{own} is {shapes[own]}, expected {shape}")
    shared = len(network.expected) - len(differences)
    if differences:
        return Fit(prefix, family, network, names, tuple(differences), shared, ())
    extra = _extra(network, prefix, names, shapes)
    habits = family.habits({without_prefix(name, prefix): shape for name, shape in shapes.items()})
    return Fit(
        prefix,
        family,
        _accustomed(network, habits),
        names,
        tuple(extra.misplaced),
        shared,
        tuple(extra.ignored),
        tuple(extra.biases),
        matched_by,
        habits,
    )


def _accustomed(network: Network, habits: Habits) -> Network:
    """With every network's assumptions, and the dialect's habits as the defaults."""
    own = {choice.key: choice for choice in network.assumptions}
    every = {choice.key: choice for choice in EVERY_NETWORK if choice.key not in own}
    choices = {**own, **every}
    for key, value in habits.settings.items():
        if key in choices:
            choices[key] = choices[key].with_default(value)
    return replace(
        network,
        assumptions=tuple(choices.values()),
        preprocess=habits.preprocess or network.preprocess,
        input_size_px=habits.input_size_px or network.input_size_px,
    )


@dataclass(frozen=True)
class _Extra:
    """Tensors that a network of this kind does not have."""

    ignored: list[str]
    biases: list[str]
    misplaced: list[str]


def _extra(network: Network, prefix: str, names: Mapping[str, str], shapes: Shapes) -> _Extra:
    extra = _Extra([], [], [])
    for canonical, own in names.items():
        if canonical in network.expected or own.endswith("num_batches_tracked"):
            continue
        beside = not own.startswith(prefix) and len(shapes[own]) < 2
        unused = any(re.match(pattern, canonical) for pattern in network.unused)
        if own.endswith(COUNTERS) or beside or unused:
            extra.ignored.append(own)
        elif _is_bias(canonical, network.expected, shapes[own]):
            extra.biases.append(canonical)
        else:
            extra.misplaced.append(f"{own} {shapes[own]} has no place in it")
    for own in shapes.keys() - names.values():
        extra.misplaced.append(f"{own} means the same as another tensor")
    return extra


def _is_bias(canonical: str, expected: Shapes, shape: tuple[int, ...]) -> bool:
    weight = expected.get(f"{canonical.removesuffix('bias')}weight", ())
    return canonical.endswith(".bias") and len(weight) == 4 and shape == weight[:1]
