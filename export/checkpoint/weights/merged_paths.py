"""A ResNeXt of separate paths as one of grouped convolutions.

Xie et al., arXiv:1611.05431, figure 3, gives three forms of one block, C paths of width d:

    (a)  Σᵢ Kᵢ * relu(bn(Gᵢ * relu(bn(Fᵢ * x))))        C separate paths, summed
    (b)  K * concatᵢ relu(bn(Gᵢ * relu(bn(Fᵢ * x))))     C separate paths, concatenated early
    (c)  K * relu(bn(G *_C relu(bn(F * x))))             grouped convolution

With F and G the paths' weights stacked along their outputs, and K along its inputs, (a) and (b)
are (c). A batch norm at the end of each path of (a) goes into Kᵢ, and the sum of its shifts into a
batch norm that does nothing else.

    before: (Fᵢ, bn, Gᵢ, bn[, Kᵢ[, bn]]) for every i        after: F, bn, G, bn[, K[, bn]]
"""

from collections.abc import Mapping, Sequence

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.architectures.units import Unit, units_of

_FEWEST_PATHS = 2
_PARTS = ("weight", "bias", "running_mean", "running_var")
_EPS = 1e-5


def merged_paths(tensors: Mapping[str, Float32s]) -> tuple[dict[str, Float32s], int]:
    """The tensors with paths merged under the first path's names, and how many paths a block has.

    0 where there are none; the tensors are then as they were.
    """
    units = units_of({name: values.shape for name, values in tensors.items()})
    runs = _runs(units)
    paths = min((count for _, _, count in runs), default=0)
    if not paths or any(count % paths for _, _, count in runs):
        return dict(tensors), 0
    merged: dict[str, Float32s] = {}
    place = 0
    for start, period, count in runs:
        _copy(units[place:start], tensors, merged)
        for first in range(start, start + period * count, period * paths):
            together = [
                units[first + path * period : first + (path + 1) * period] for path in range(paths)
            ]
            _merge(together, tensors, merged)
        place = start + period * count
    _copy(units[place:], tensors, merged)
    return merged, paths


def _runs(units: Sequence[Unit]) -> list[tuple[int, int, int]]:
    """(first unit, units of a path, paths) wherever paths of one shape follow one another."""
    found = []
    place = 0
    while place < len(units):
        period = next((n for n in (6, 5, 4) if _is_path(units[place : place + n], n)), 0)
        count = 1
        while period and _shapes(units, place + count * period, period) == _shapes(
            units, place, period
        ):
            count += 1
        if period and count >= _FEWEST_PATHS:
            found.append((place, period, count))
            place += period * count
        else:
            place += 1
    return found


def _shapes(units: Sequence[Unit], place: int, count: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(unit.kind, unit.shape) for unit in units[place : place + count]]


def _is_path(units: Sequence[Unit], period: int) -> bool:
    kinds = ("conv", "norm", "conv", "norm", "conv", "norm")[:period]
    if tuple(unit.kind for unit in units) != kinds:
        return False
    width = units[0].shape[0]
    wanted = [(width, 3, 3), (1, 1)]
    inner = units[2].shape[1:] == wanted[0] and units[0].shape[2:] == wanted[1]
    return inner and (period == 4 or units[4].shape[1:] == (width, 1, 1))


def _copy(
    units: Sequence[Unit], tensors: Mapping[str, Float32s], merged: dict[str, Float32s]
) -> None:
    for unit in units:
        merged.update({name: tensors[name] for name in unit.parts.values()})


def _merge(
    paths: Sequence[Sequence[Unit]], tensors: Mapping[str, Float32s], merged: dict[str, Float32s]
) -> None:
    for place, unit in enumerate(paths[0]):
        same = [path[place] for path in paths]
        if place < 4:
            for part, name in unit.parts.items():
                merged[name] = np.concatenate([tensors[other.parts[part]] for other in same])
        elif place == 4:
            scales = [_scale(path, tensors) for path in paths]
            weights = [
                tensors[other.parts["weight"]] * scale[:, None, None, None]
                for other, scale in zip(same, scales, strict=True)
            ]
            merged[unit.parts["weight"]] = np.concatenate(weights, axis=1).astype(np.float32)
        else:
            merged.update(_sum_of_shifts(paths, tensors))


def _scale(path: Sequence[Unit], tensors: Mapping[str, Float32s]) -> Float32s:
    """γ / √(σ² + ε) of the norm at the end of a path, 1 where it has none."""
    if len(path) < 6:
        return np.ones(path[4].shape[0], np.float32)
    gamma, variance = (tensors[path[5].parts[part]] for part in ("weight", "running_var"))
    scale: Float32s = gamma / np.sqrt(variance + _EPS)
    return scale


def _sum_of_shifts(
    paths: Sequence[Sequence[Unit]], tensors: Mapping[str, Float32s]
) -> dict[str, Float32s]:
    total = sum(
        tensors[path[5].parts["bias"]]
        - _scale(path, tensors) * tensors[path[5].parts["running_mean"]]
        for path in paths
    )
    one = np.ones(paths[0][5].shape[0], np.float32)
    values = (one, np.asarray(total, np.float32), 0 * one, one * (1 - _EPS))
    names = paths[0][5].parts
    return {names[part]: value for part, value in zip(_PARTS, values, strict=True)}
