"""Weights that training kept in several tensors, as the one tensor the network computes with.

    pruning                  W = weight_orig · weight_mask
    weight norm              W = g · v / |v|, the norm over all dimensions but the first
    spectral norm            W = weight_orig / (uᵀ W v), W as a matrix of its first dimension
    linear, batch norm       W' = diag(s) W,  b' = s (b − μ) + β,     s = γ / √(σ² + ε)
    batch norm, … linear     W' = W diag(s),  b' = b + W (β − s μ)

The last two are heads with BatchNorm1d, such as fastai's and those of self-supervised projectors.
Everything is computed in float64.
"""

import re
from collections.abc import Mapping

import numpy as np

from resdeploy.deploy.arrays import Float32s, Float64s

_EPS = 1e-5  # torch's default, which nobody changes in a head
_PARAMETRIZED = re.compile(r"(.*\.|)parametrizations\.(\w+)\.(original\d?|0\._[uv])$")


def plain_weights(tensors: dict[str, Float32s], notes: list[str]) -> dict[str, Float32s]:
    """The tensors under the names and with the values of a plain network."""
    tensors = _without_parametrizations(tensors)
    made: dict[str, Float32s] = {}
    used: set[str] = set()
    for name in tensors:
        root = re.sub(r"_(orig|g)$", "", name)
        if root != name and root not in tensors:
            parts = {part: tensors.get(f"{root}_{part}") for part in ("mask", "v", "u")}
            values = _made_of(tensors[name], name, parts)
            if values is not None:
                made[root] = values
                used |= {f"{root}_{part}" for part in ("orig", "g", "mask", "v", "u")}
    if made:
        notes.append(
            f"{len(made)} weights were stored as masks, norms or directions and are multiplied out"
        )
    ordered: dict[str, Float32s] = {}
    for name, values in tensors.items():
        root = re.sub(r"_(orig|g|mask|v|u)$", "", name)
        if root in made and name in used:
            ordered.setdefault(root, made[root])
        else:
            ordered[name] = values
    return _folded_heads(ordered, notes)


def _without_parametrizations(tensors: dict[str, Float32s]) -> dict[str, Float32s]:
    """torch.nn.utils.parametrizations under the names of the older functions."""
    renamed: dict[str, Float32s] = {}
    both = {name for name in tensors if name.endswith(".original1")}
    for name, values in tensors.items():
        match = _PARAMETRIZED.fullmatch(name)
        if match is None:
            renamed[name] = values
            continue
        parts = {"original0": "_g", "original1": "_v", "original": "_orig"}
        root = f"{match[1]}{match[2]}"
        last = match[3][-1]
        if match[3] == "original" and f"{match[1]}parametrizations.{match[2]}.0._u" not in tensors:
            renamed[root] = values  # a parametrization that keeps nothing, such as orthogonal
        elif match[3] in parts:
            renamed[f"{root}{parts[match[3]]}"] = values
        elif not both:
            renamed[f"{root}_{last}"] = values
    return renamed


def _made_of(first: Float32s, name: str, parts: Mapping[str, Float32s | None]) -> Float32s | None:
    value = first.astype(np.float64)
    mask, direction, left = parts["mask"], parts["v"], parts["u"]
    if name.endswith("_g") and direction is not None:
        v = direction.astype(np.float64)
        axes = tuple(range(1, v.ndim))
        result = value * v / np.sqrt(np.square(v).sum(axis=axes, keepdims=True))
    elif name.endswith("_orig") and mask is not None:
        result = value * mask
    elif name.endswith("_orig") and left is not None and direction is not None:
        matrix = value.reshape(value.shape[0], -1)
        result = value / (left @ matrix @ direction)
    else:
        return None
    floats: Float32s = result.astype(np.float32)
    return floats


def _folded_heads(tensors: dict[str, Float32s], notes: list[str]) -> dict[str, Float32s]:
    """Batch norms among linear layers of one Sequential, folded into those."""
    folded = dict(tensors)
    count = 0
    for parent, numbers in _sequentials(tensors).items():
        for place, number in enumerate(numbers):
            norm = f"{parent}{number}"
            if f"{norm}.running_mean" not in tensors:
                continue
            before = numbers[place - 1] if place else -2
            after = numbers[place + 1] if place + 1 < len(numbers) else -2
            if before == number - 1 and _is_linear(tensors, f"{parent}{before}"):
                _into_linear_before(folded, f"{parent}{before}", norm)
            elif _feeds(tensors, norm, f"{parent}{after}") and (
                not place or _is_linear(tensors, f"{parent}{before}")
            ):
                _into_linear_after(folded, norm, f"{parent}{after}")
            else:
                continue
            count += 1
            for name in [name for name in folded if name.startswith(f"{norm}.")]:
                del folded[name]
    if count:
        notes.append(f"{count} batch norms of the head are folded into its linear layers")
    return folded


def _sequentials(tensors: Mapping[str, Float32s]) -> dict[str, list[int]]:
    """Each Sequential with a linear layer and a batch norm: its prefix and its numbers."""
    numbers: dict[str, set[int]] = {}
    for name in tensors:
        match = re.fullmatch(r"(.*\.|)(\d+)\.\w+", name)
        if match:
            numbers.setdefault(match[1], set()).add(int(match[2]))
    return {
        parent: sorted(found)
        for parent, found in numbers.items()
        if any(_is_linear(tensors, f"{parent}{number}") for number in found)
    }


def _is_linear(tensors: Mapping[str, Float32s], module: str) -> bool:
    weight = tensors.get(f"{module}.weight")
    return weight is not None and weight.ndim == 2


def _feeds(tensors: Mapping[str, Float32s], norm: str, linear: str) -> bool:
    width = tensors[f"{norm}.running_mean"].shape[0]
    return _is_linear(tensors, linear) and tensors[f"{linear}.weight"].shape[1] == width


def _scale_and_shift(tensors: Mapping[str, Float32s], norm: str) -> tuple[Float64s, Float64s]:
    mean = tensors[f"{norm}.running_mean"].astype(np.float64)
    scale = 1 / np.sqrt(tensors[f"{norm}.running_var"].astype(np.float64) + _EPS)
    if f"{norm}.weight" in tensors:
        scale = scale * tensors[f"{norm}.weight"]
    shift = tensors.get(f"{norm}.bias", np.zeros_like(mean)) - scale * mean
    return scale, shift


def _into_linear_before(tensors: dict[str, Float32s], linear: str, norm: str) -> None:
    scale, shift = _scale_and_shift(tensors, norm)
    weight = tensors[f"{linear}.weight"].astype(np.float64)
    bias = tensors.get(f"{linear}.bias", np.zeros_like(shift)).astype(np.float64)
    tensors[f"{linear}.weight"] = (scale[:, None] * weight).astype(np.float32)
    tensors[f"{linear}.bias"] = (scale * bias + shift).astype(np.float32)


def _into_linear_after(tensors: dict[str, Float32s], norm: str, linear: str) -> None:
    scale, shift = _scale_and_shift(tensors, norm)
    weight = tensors[f"{linear}.weight"].astype(np.float64)
    bias = tensors.get(f"{linear}.bias", np.zeros(weight.shape[0])).astype(np.float64)
    tensors[f"{linear}.weight"] = (weight * scale).astype(np.float32)
    tensors[f"{linear}.bias"] = (bias + weight @ shift).astype(np.float32)
