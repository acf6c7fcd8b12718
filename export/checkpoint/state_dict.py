"""Where training scripts put the state_dict in a file, and what they put before its names.

Wrapper: `{"epoch": 3, "model": {...}}`. The keys looked under are listed in order of preference;
averaged weights come first, because they are the ones such a run is evaluated with.

Prefix: `module.` (DataParallel), `_orig_mod.` (torch.compile), `model.` or `net.` (Lightning),
`backbone.`, and any nest of them. None is known by name: a prefix is whatever stands before the
name of a stem convolution, and it is removed only where a known architecture fits the result.

Bounds: in a pickle one storage may stand for any number of tensors of any shape; with strides of
zero a file of a kilobyte declares terabytes. That is refused before any value is read.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.formats.stored import Stored, bytes_each
from resdeploy.export.checkpoint.formats.unpickle import plain

_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "params_ema",
    "ema",
    "state_dict",
    "teacher",
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
# mmengine 1.x keeps the classes in meta.dataset_meta, 0.x in meta, Lightning in hyper_parameters.
_LABEL_HOLDERS = (("meta",), ("meta", "dataset_meta"), ("hyper_parameters",))
_DEEPEST_WRAPPER = 3
_NAMED = 20


# several times what the largest classifiers of timm have
_TENSORS_LIMIT = 10_000
_NAME_LIMIT = 1000
# weights may be shared, in a file that is compressed besides
_TIMES_THE_FILE = 4
_ALWAYS_BYTES = 64 << 20


@dataclass(frozen=True)
class Found:
    """A state_dict inside the object a file held; `wrapper` is the path of keys to it, or None."""

    wrapper: str | None
    tensors: dict[str, Stored]
    notes: tuple[str, ...]


def find_state_dict(root: object) -> Found | None:
    """The preferred mapping of parameter names to tensors in `root`, or None where there is none.

    A state_dict has names as keys and at least one tensor of two or more dimensions; the state of
    an optimizer, keyed by numbers, is none.
    """
    found = sorted(_state_dicts(root), key=_rank)
    if not found:
        return None
    keys, mapping = found[0]
    notes = []
    if keys:
        notes.append(f"weights taken from {_joined(keys)}")
    if len(found) > 1:
        others = some([_joined(other) for other, _ in found[1:]])
        notes.append(f"other weights left in the file: {others}")
    if keys and isinstance(root, Mapping):
        riders = [
            f"{key} ({type(value).__name__})"
            for key, value in root.items()
            if str(key) not in {other[0] for other, _ in found}
        ]
        if riders:
            notes.append(f"ignored: {some(riders)}")
    tensors = {name: value for name, value in mapping.items() if isinstance(value, Stored)}
    no_tensors = [str(name) for name in mapping if name not in tensors]
    if no_tensors:
        notes.append(f"ignored, not tensors: {some(no_tensors)}")
    return Found(_joined(keys) if keys else None, tensors, tuple(notes))


def check_bounds(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Raise CheckpointError for too many tensors, odd names, or more values than fit the file."""
    if len(tensors) > _TENSORS_LIMIT:
        raise CheckpointError(
            f"{path} has a state_dict of {len(tensors)} tensors, limit: {_TENSORS_LIMIT}: it is no "
            "checkpoint of an image classifier"
        )
    for name in tensors:
        if not name.isprintable() or len(name) > _NAME_LIMIT:
            raise CheckpointError(
                f"{path} has a tensor called {name[:40]!r}: names must be printable and at most "
                f"{_NAME_LIMIT} characters long; save the network's own state_dict"
            )
    size = path.stat().st_size
    declared = sum(math.prod(tensor.shape) * bytes_each(tensor) for tensor in tensors.values())
    if declared > _TIMES_THE_FILE * size + _ALWAYS_BYTES:
        raise CheckpointError(
            f"{path} declares tensors of {declared / 1e9:.3g} GB in a file of {size / 1e9:.3g} GB: "
            "it is damaged or made to exhaust memory; save the network's own state_dict"
        )


def find_labels(root: object) -> tuple[str, ...] | None:
    """Class names stored beside the weights as plain strings, in the order of the classes."""
    if not isinstance(root, Mapping):
        return None
    for path in ((), *_LABEL_HOLDERS):
        holder: object = root
        for key in path:
            holder = holder.get(key) if isinstance(holder, Mapping) else None
        if not isinstance(holder, Mapping):
            continue
        for key in _LABELS:
            labels = labels_of(holder.get(key))
            if labels:
                return labels
    return None


def _state_dicts(root: object) -> Iterator[tuple[tuple[str, ...], Mapping[str, object]]]:
    """Every state_dict in `root` with the keys to it, those nearest to the top first.

    What a file holds in many places is looked into once, so that a small file takes no long search.
    """
    level: list[tuple[tuple[str, ...], object]] = [((), root)]
    seen: set[int] = set()
    for depth in range(_DEEPEST_WRAPPER + 1):
        below: list[tuple[tuple[str, ...], object]] = []
        for keys, value in level:
            if id(value) in seen:
                continue
            seen.add(id(value))
            found = _mapping(value)
            if found is None:
                continue
            if _is_state_dict(found):
                yield keys, found
            elif depth < _DEEPEST_WRAPPER:
                below += [
                    ((*keys, key), item) for key, item in found.items() if isinstance(key, str)
                ]
        level = sorted(below, key=_rank)


def _mapping(value: object) -> Mapping[Any, object] | None:
    if isinstance(value, list | tuple):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return None
    return {key: plain(item) for key, item in value.items()}


def _is_state_dict(value: Mapping[Any, object]) -> bool:
    names = [name for name, item in value.items() if isinstance(item, Stored)]
    matrices = (item for item in value.values() if isinstance(item, Stored) and item.ndim >= 2)
    return all(isinstance(name, str) for name in names) and any(matrices)


def _rank(found: tuple[tuple[str, ...], object]) -> tuple[int, ...]:
    keys, _ = found
    return tuple(_WRAPPERS.index(key) if key in _WRAPPERS else len(_WRAPPERS) for key in keys)


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _joined(keys: tuple[str, ...]) -> str:
    return ".".join(keys)


def labels_of(value: object) -> tuple[str, ...] | None:
    """Names in the order of the classes, from a list or {name: index} or {index: name}."""
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
