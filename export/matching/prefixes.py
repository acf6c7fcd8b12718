"""Prefixes of parameter names: found by the stem convolution, taken off."""

import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from os.path import commonprefix

from resdeploy.export.architectures.units import COUNTERS, Shape

_COLOURS = 3
# Each prefix costs a reading of all names by every family. A thousand tensors, which is many, may
# stand behind ten prefixes, and people's files have a handful of networks in them.
_NAMES_READ_LIMIT = 10_000
_LEAST_PREFIXES = 2


def candidate_prefixes(shapes: Mapping[str, Shape], stems: Iterable[str]) -> list[str]:
    """What may stand before the names: "" and all that precedes a stem convolution, shortest first.

    `stems` are the names a known architecture gives its first convolution; a tensor of that name
    is one only if it has four dimensions and three input channels.
    """
    prefixes = {""}
    for name, shape in shapes.items():
        if len(shape) == 4 and shape[1] == _COLOURS:
            for stem in stems:
                if name.endswith(f".{stem}"):
                    prefixes.add(name[: -len(stem)])
    return sorted(prefixes, key=len)[: _limit(shapes)]


def without_prefix(name: str, prefix: str) -> str:
    """`name` less `prefix`, or less the longest part of it that ends at a dot and does match.

    So that with prefix "module.backbone." a head beside the backbone, "module.fc.weight", becomes
    "fc.weight".
    """
    if name.startswith(prefix):
        return name[len(prefix) :]
    shared = commonprefix((name, prefix))  # noqa: RUF071 - of texts, not of paths
    return name[shared.rfind(".") + 1 :]


def shared_prefix(names: Iterable[str]) -> str:
    """The modules that all names begin with, as "NAME."; "" where there are none."""
    modules = [name.split(".")[:-1] for name in names if not name.endswith(COUNTERS)]
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*modules, strict=False))
    return "".join(f"{level[0]}." for level in shared)


def scopes(shapes: Mapping[str, Shape]) -> list[str]:
    """Every module around a convolution of three-channel input, outermost first, as "NAME."."""
    found = {}
    for name, shape in shapes.items():
        if len(shape) == 4 and shape[1] == _COLOURS:
            parts = name.split(".")
            for depth in range(1, len(parts) - 1):
                found[".".join(parts[:depth]) + "."] = depth
    return sorted(found, key=lambda scope: found[scope])[: _limit(shapes)]


def _limit(shapes: Mapping[str, Shape]) -> int:
    return max(_LEAST_PREFIXES, _NAMES_READ_LIMIT // max(1, len(shapes)))


def by_number(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Tensors in the order of their names, numbers in them as numbers, stem first and head last.

    The order of the layers as far as names in alphabetical order can tell it: block 10 comes after
    block 9; the three-channel convolution and a norm of its width beside it, or the module that
    holds them, before everything; the outermost linear layers after everything.
    """
    names = sorted(shapes, key=_with_numbers)
    stem = next((n for n in names if len(shapes[n]) == 4 and shapes[n][1] == _COLOURS), None)
    linears = [name for name in names if len(shapes[name]) == 2]
    outermost = min((name.count(".") for name in linears), default=0)
    heads = {_module(name) for name in linears if name.count(".") == outermost}
    first = set() if stem is None else _stem(stem, names, shapes)

    def place(name: str) -> int:
        return 0 if _module(name) in first else 2 if _module(name) in heads else 1

    return {name: shapes[name] for name in sorted(names, key=place)}


def _stem(stem: str, names: list[str], shapes: Mapping[str, Shape]) -> set[str]:
    """Modules of the stem: the innermost one around it that is not most of the network."""
    parents = stem.split(".")[:-1]
    for depth in range(1, len(parents)):
        around = ".".join(parents[:depth]) + "."
        inside = [name for name in names if name.startswith(around)]
        if 2 * len(inside) < len(names):
            return {_module(name) for name in inside}
    holder = _module(_module(stem))
    beside = (n for n in names if _module(_module(n)) == holder and n.endswith(".running_mean"))
    norm = next((_module(n) for n in beside if shapes[n] == shapes[stem][:1]), "")
    return {_module(stem), norm}


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _with_numbers(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
