"""Where training scripts put the state_dict in a file, and what they put before its names.

Wrapper: `{"epoch": 3, "model": {...}}`. The keys looked under are listed in order of preference;
averaged weights come first, because they are the ones such a run is evaluated with.

Prefix: `module.` (DataParallel), `_orig_mod.` (torch.compile), `model.` or `net.` (Lightning),
`backbone.`, and any nest of them. None is known by name: a prefix is whatever stands before the
name of a stem convolution, and it is removed only where a known architecture fits the result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "params_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
    "backbone",
)
_LABELS = ("class_to_idx", "idx_to_class", "classes", "class_names", "CLASSES", "labels")
_LABEL_HOLDERS = ("meta", "hyper_parameters")
_DEEPEST_WRAPPER = 3


@dataclass(frozen=True)
class Found:
    """A state_dict inside the object a file held; `wrapper` is the path of keys to it, or None."""

    wrapper: str | None
    tensors: dict[str, torch.Tensor]
    notes: tuple[str, ...]


def find_state_dict(root: object) -> Found | None:
    """The preferred mapping of parameter names to tensors in `root`, or None where there is none.

    A state_dict has names as keys and at least one tensor of two or more dimensions; the state of
    an optimizer, keyed by numbers, is none.
    """
    found = sorted(_state_dicts(root, ()), key=_rank)
    if not found:
        return None
    keys, mapping = found[0]
    notes = []
    if keys:
        notes.append(f"weights taken from {_joined(keys)}")
    if len(found) > 1:
        others = ", ".join(_joined(other) for other, _ in found[1:])
        notes.append(f"other weights left in the file: {others}")
    if keys and isinstance(root, Mapping):
        riders = [
            f"{key} ({type(value).__name__})"
            for key, value in root.items()
            if str(key) not in {other[0] for other, _ in found}
        ]
        if riders:
            notes.append(f"ignored: {', '.join(riders)}")
    tensors = {name: value for name, value in mapping.items() if isinstance(value, torch.Tensor)}
    no_tensors = [str(name) for name in mapping if name not in tensors]
    if no_tensors:
        notes.append(f"ignored, not tensors: {', '.join(no_tensors)}")
    return Found(_joined(keys) if keys else None, tensors, tuple(notes))


def find_labels(root: object) -> tuple[str, ...] | None:
    """Class names stored beside the weights as plain strings, in the order of the classes."""
    if not isinstance(root, Mapping):
        return None
    holders = [root, *(root[key] for key in _LABEL_HOLDERS if isinstance(root.get(key), Mapping))]
    for holder in holders:
        for key in _LABELS:
            labels = _labels_of(holder.get(key))
            if labels:
                return labels
    return None


def candidate_prefixes(shapes: Mapping[str, tuple[int, ...]], stems: Iterable[str]) -> list[str]:
    """ "" and everything that stands before a stem convolution's name, shortest first.

    `stems` are the names a known architecture gives its first convolution; a tensor of that name
    is one only if it has four dimensions and at most four input channels.
    """
    prefixes = {""}
    for name, shape in shapes.items():
        if len(shape) == 4 and shape[1] <= 4:
            for stem in stems:
                if name.endswith(f".{stem}"):
                    prefixes.add(name[: -len(stem)])
    return sorted(prefixes, key=len)


def without_prefix(name: str, prefix: str) -> str:
    """`name` less `prefix`, or less the longest part of it that ends at a dot and does match.

    So that with prefix "module.backbone." a head beside the backbone, "module.fc.weight", becomes
    "fc.weight".
    """
    while prefix and not name.startswith(prefix):
        prefix = prefix[: prefix.rstrip(".").rfind(".") + 1]
    return name[len(prefix) :]


def _state_dicts(
    value: object, keys: tuple[str, ...]
) -> Iterable[tuple[tuple[str, ...], Mapping[str, object]]]:
    if isinstance(value, list | tuple):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return
    names = [name for name, item in value.items() if isinstance(item, torch.Tensor)]
    if all(isinstance(name, str) for name in names) and any(
        value[name].ndim >= 2 for name in names
    ):
        yield keys, value
    elif len(keys) < _DEEPEST_WRAPPER:
        for key, item in value.items():
            if isinstance(key, str):
                yield from _state_dicts(item, (*keys, key))


def _rank(found: tuple[tuple[str, ...], Mapping[str, object]]) -> tuple[int, ...]:
    keys, _ = found
    return tuple(_WRAPPERS.index(key) if key in _WRAPPERS else len(_WRAPPERS) for key in keys)


def _joined(keys: tuple[str, ...]) -> str:
    return ".".join(keys)


def _labels_of(value: object) -> tuple[str, ...] | None:
    if isinstance(value, Mapping) and value:
        pairs = list(value.items())
        if all(isinstance(key, str) and isinstance(index, int) for key, index in pairs):
            pairs = [(index, label) for label, index in pairs]
        elif all(str(key).isdecimal() for key, _ in pairs):
            pairs = [(int(key), label) for key, label in pairs]
        else:
            return None
        pairs.sort(key=lambda pair: pair[0])
        if [index for index, _ in pairs] != list(range(len(pairs))):
            return None
        value = [label for _, label in pairs]
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    return None
