"""One network of a file that holds two of a kind, such as a teacher and its student.

Two networks are two prefixes under which the convolutions have the same names and shapes. Words in
the prefix tell which one is meant to be used: self-supervised methods keep a second, momentum
encoder, distillation a student, adversarial training a copy for its attacker.

A teacher of another kind than its student taught it by distillation: then the student is meant.
"""

from collections.abc import Mapping
from itertools import combinations, takewhile
from pathlib import Path

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import CheckpointError

_USED = ("encoder_q", "teacher", "ema", "averaged", "online")
_LEFT = ("encoder_k", "student", "momentum", "attacker", "target", "key_encoder", "model_k")
_FEWEST_CONVOLUTIONS = 8
_COLOURS = 3
_STEMS_LOOKED_AT = 16  # grouped convolutions may have three channels per group, many times


def one_network(path: Path, tensors: dict[str, Float32s], notes: list[str]) -> dict[str, Float32s]:
    """`tensors` without the second network's, which is named in `notes`.

    Raises:
        CheckpointError: there are two with different weights and nothing tells which is meant.
    """
    for first, second in combinations(_stems(tensors)[:_STEMS_LOOKED_AT], 2):
        prefixes = _prefixes(first, second)
        inside = [_inside(prefix, prefixes, tensors) for prefix in prefixes]
        if not _same_shapes(inside[0], inside[1], tensors):
            continue
        kept, left = _preferred(path, prefixes, inside)
        notes.append(
            f"there are two networks in the file: the one under {prefixes[kept]!r} is taken, "
            f"the {len(inside[left])} tensors under {prefixes[left]!r} are left"
        )
        dropped = set(inside[left].values())
        rest = {name: values for name, values in tensors.items() if name not in dropped}
        return one_network(path, rest, notes)
    return _without_a_teacher(tensors, notes)


def _without_a_teacher(tensors: dict[str, Float32s], notes: list[str]) -> dict[str, Float32s]:
    stems = _stems(tensors)
    teacher, student = (_up_to(word, stems) for word in ("teacher", "student"))
    if teacher is None or student is None or teacher == student:
        return tensors
    rest = {name: values for name, values in tensors.items() if not name.startswith(teacher)}
    notes.append(
        f"there are two networks in the file, of two kinds: the one under {student!r} is taken, "
        f"the {len(tensors) - len(rest)} tensors of its teacher under {teacher!r} are left"
    )
    return rest


def _up_to(word: str, names: list[str]) -> str | None:
    """The first of the names as far as the part that has the word in it, or None."""
    for name in names:
        parts = name.split(".")
        for at, part in enumerate(parts[:-1], start=1):
            if word in part:
                return ".".join([*parts[:at], ""])
    return None


def _stems(tensors: Mapping[str, Float32s]) -> list[str]:
    return [
        name for name, values in tensors.items() if values.ndim == 4 and values.shape[1] == _COLOURS
    ]


def _prefixes(first: str, second: str) -> tuple[str, str]:
    """What stands before the part of their names that two tensors have in common."""
    one, other = first.split("."), second.split(".")
    pairs = zip(reversed(one), reversed(other), strict=False)
    common = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return ".".join([*one[: len(one) - common], ""]), ".".join([*other[: len(other) - common], ""])


def _inside(
    prefix: str, prefixes: tuple[str, str], tensors: Mapping[str, Float32s]
) -> dict[str, str]:
    """{name without the prefix: name}; what lies under a longer prefix is the other network's."""
    other = prefixes[0] if prefix == prefixes[1] else prefixes[1]
    deeper = other if other.startswith(prefix) and len(other) > len(prefix) else "\0"
    return {
        name.removeprefix(prefix): name
        for name in tensors
        if name.startswith(prefix) and not name.startswith(deeper)
    }


def _same_shapes(
    one: Mapping[str, str], other: Mapping[str, str], tensors: Mapping[str, Float32s]
) -> bool:
    convs = [
        {(name, tensors[own].shape) for name, own in inside.items() if tensors[own].ndim == 4}
        for inside in (one, other)
    ]
    return len(convs[0] & convs[1]) >= _FEWEST_CONVOLUTIONS and (
        convs[0] <= convs[1] or convs[1] <= convs[0]
    )


def _preferred(
    path: Path, prefixes: tuple[str, str], inside: list[dict[str, str]]
) -> tuple[int, int]:
    """Indices of the network to take and of the one to leave."""
    score = [
        sum(word in prefix for word in _USED) - sum(word in prefix for word in _LEFT)
        for prefix in prefixes
    ]
    if score[0] != score[1]:
        return (0, 1) if score[0] > score[1] else (1, 0)
    raise CheckpointError(
        f"{path} holds two networks, {prefixes[0]!r} and {prefixes[1]!r}, with "
        f"{len(inside[0])} and {len(inside[1])} tensors: save the one to export with "
        f"torch.save({{k.removeprefix({prefixes[0]!r}): v for k, v in state.items() "
        f"if k.startswith({prefixes[0]!r})}}, 'one.pth')"
    )
