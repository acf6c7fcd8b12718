"""The tensors of a state_dict as layers in the order of the file.

A convolution has a weight of four dimensions, one along the channels a weight (1, 1, kernel); a
norm has vectors only, with statistics for a batch norm; a linear layer has a matrix. Modules
register their layers in the order in which they were written down, and `state_dict` keeps that
order, so the sequence of (kind, shape) says what a network is when its names do not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Kind = Literal["conv", "conv1d", "norm", "linear", "other"]

COUNTERS = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")
"""Ends of names that are no part of a network's function: batch norm's counter, what the profiler
thop leaves behind, and AveragedModel's counter."""

_STATISTICS = ("running_mean", "running_var")
_NORM = ("weight", "bias", *_STATISTICS)


@dataclass(frozen=True)
class Unit:
    """One layer with weights.

    Attributes:
        name: the module's name in the file.
        shape: of the weight; (channels,) for a norm.
        parts: the tensors, "weight", "bias", "running_mean" or "running_var" -> name in the file.
    """

    kind: Kind
    name: str
    shape: Shape
    parts: Mapping[str, str]


def units_of(shapes: Shapes) -> tuple[Unit, ...]:
    """The layers in the order in which each one's first tensor stands in `shapes`.

    Tensors of one layer share what stands before the last dot. Where no tensor is called "weight",
    the names tell nothing, and vectors belong to the layer before them: one is its bias, four are a
    batch norm, five are both.
    """
    kept = {name: shape for name, shape in shapes.items() if not name.endswith(COUNTERS)}
    if not any(name.rpartition(".")[2] == "weight" for name in kept):
        return tuple(_nameless(kept))
    grouped: dict[str, dict[str, str]] = {}
    for name in kept:
        module, _, part = name.rpartition(".")
        grouped.setdefault(module, {})[part] = name
    return tuple(_unit(module, parts, kept) for module, parts in grouped.items())


def _unit(module: str, parts: Mapping[str, str], shapes: Shapes) -> Unit:
    shape = shapes[parts["weight"]] if "weight" in parts else ()
    kind: Kind = "other"
    if len(shape) == 3 and shape[:2] == (1, 1):
        kind = "conv1d"  # efficient channel attention, along the channels
    elif len(shape) > 1 and len(squeezed(shape)) == 1:
        kind, shape = "norm", squeezed(shape)
    elif len(shape) == 4 and all(shape):
        kind = "conv"
    elif len(shape) == 2 and all(shape):
        kind = "linear"
    elif len(shape) == 1 or any(part in parts for part in _STATISTICS):
        kind, shape = "norm", shapes[next(iter(parts.values()))]
    return Unit(kind, module, shape, parts)


def _nameless(shapes: Shapes) -> Iterable[Unit]:
    """Layers of tensors whose names say nothing: each weight and the vectors after it."""
    vectors: list[str] = []
    weight: str | None = None
    for name in [*shapes, None]:
        if name is not None and len(shapes[name]) == 1:
            vectors.append(name)
            continue
        yield from _layer_and_norm(weight, vectors, shapes)
        weight, vectors = name, []


def _layer_and_norm(weight: str | None, vectors: list[str], shapes: Shapes) -> Iterable[Unit]:
    count = len(_NORM)
    bias, norm = (vectors[:1], vectors[1:]) if len(vectors) % count == 1 else ([], vectors)
    if weight is not None:
        parts = {"weight": weight, **({"bias": bias[0]} if bias else {})}
        yield _unit(weight, parts, shapes)
    for start in range(0, len(norm), count):
        names = norm[start : start + count]
        yield _unit(names[0], dict(zip(_NORM, names, strict=False)), shapes)


def in_order(expected: Shapes, units: Sequence[Unit]) -> Iterable[Mapping[str, str]]:
    """{module of `expected`: module of the file}, where weights and norms agree in order.

    Norms are a sequence of their own, so that it does not matter whether a block lists each norm
    beside its convolution or after all of them. Yields one mapping, or none where a sequence
    differs. A linear layer may be a 1x1 convolution in the file.
    """
    wanted, found = _sequences(units_of(expected)), _sequences(units)
    names: dict[str, str] = {}
    for ours, theirs in zip(wanted, found, strict=True):
        if [squeezed(unit.shape) for unit in ours] != [squeezed(unit.shape) for unit in theirs]:
            return
        names.update({our.name: their.name for our, their in zip(ours, theirs, strict=True)})
    yield names


def squeezed(shape: Shape) -> Shape:
    """`shape` without its dimensions of 1 after the first two: (10, 64, 1, 1) -> (10, 64).

    A vector may have been saved as one that is multiplied with maps, (1, 1, 1, C) or (C, 1, 1).
    """
    long = tuple(size for size in shape if size != 1)
    if len(long) == 1 and (len(shape) == 3 or shape[:2] == (1, 1)):
        return long
    return shape[:2] + tuple(size for size in shape[2:] if size != 1)


def _sequences(units: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    weights = [unit for unit in units if unit.kind in ("conv", "conv1d", "linear")]
    return weights, [unit for unit in units if unit.kind == "norm"]
