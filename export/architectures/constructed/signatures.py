"""The names and shapes that torchvision's and timm's constructors make, told without either.

`signatures.json.gz` is computed by `architectures.modules.compute_signatures`, never edited by
hand. It holds every network once, with what finds it among hundreds:

    fingerprint    channels of the first convolution, those of the widest norm, and how many
                   convolutions and linear layers there are; whatever the order of the names
    opening        a checksum over the shapes of the first of them, which an encoder shares with
                   the classifier that it was cut from

A linear layer and a 1x1 convolution count alike.

Both only choose candidates: all names and shapes are compared afterwards, and once more with the
constructor's own when the network is built.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

from resdeploy.export.architectures.units import Shape, Unit, squeezed

TIMM_PREFIX = "timm:"
"""What a name of timm's begins with, here and after `--arch`."""

CLASSES = 0
"""Stands in a signature's shapes where the number of classes goes."""

DATA = Path(__file__).with_name("signatures.json.gz")

Fingerprint = tuple[int, int, int]

_COLOURS = 3
_OPENING_LAYERS = 10
_LAYERS = ("conv", "linear")
_NORM = ("weight", "bias", "running_mean", "running_var")
_EVERY_PART = "*"


@dataclass(frozen=True)
class Signature:
    """A network of a library's, without its numbers.

    Attributes:
        name: torchvision's, or timm's after "timm:".
        tensors: name -> shape in the order of the constructor, counters left out; CLASSES stands
            for the number of classes.
        features: inputs of the classifier.
        eps: of all batch norms, or None where they differ or there are none.
        input_size_px, preprocess: the usual ones, from the library's own description.
    """

    name: str
    tensors: Mapping[str, Shape]
    features: int
    eps: str | None
    input_size_px: int
    preprocess: str

    def for_classes(self, classes: int) -> dict[str, Shape]:
        """name -> shape with that many classes."""
        return {
            name: tuple(classes if size == CLASSES else size for size in shape)
            for name, shape in self.tensors.items()
        }

    @property
    def head(self) -> frozenset[str]:
        """The tensors whose shapes follow the number of classes."""
        return frozenset(name for name, shape in self.tensors.items() if CLASSES in shape)


def fingerprint(units: Iterable[Unit]) -> Fingerprint | None:
    """Of the layers in any order; None where nothing reads three channels."""
    units = tuple(units)
    layers = [unit.shape for unit in units if unit.kind in _LAYERS]
    stem = next((s[0] for s in layers if len(s) == 4 and s[1] == _COLOURS), None)
    if stem is None:
        return None
    widest = max((unit.shape[0] for unit in units if unit.kind == "norm" and unit.shape), default=0)
    return stem, widest, len(layers)


def opening(units: Iterable[Unit]) -> int | None:
    """A checksum over the first layers; None where there are too few of them."""
    layers = [squeezed(unit.shape) for unit in units if unit.kind in _LAYERS][:_OPENING_LAYERS]
    return crc32(repr(layers).encode()) if len(layers) == _OPENING_LAYERS else None


def with_fingerprint(units: Iterable[Unit]) -> Iterable[Signature]:
    """The networks of that fingerprint, torchvision's first."""
    found = fingerprint(units)
    return _matching(lambda entry: found is not None and entry["fingerprint"] == list(found))


def with_opening(units: Iterable[Unit]) -> Iterable[Signature]:
    """The networks that begin so, torchvision's first."""
    found = opening(units)
    return _matching(lambda entry: found is not None and entry["opening"] == found)


def signature(name: str) -> Signature | None:
    """The network of that name, or None where it is not among the data."""
    return _signature(name) if name in _data()["networks"] else None


def made_with() -> dict[str, str]:
    """The versions of the libraries whose constructors were asked."""
    return dict(_data()["made_with"])


def names() -> tuple[str, ...]:
    """All networks there are."""
    return tuple(_data()["networks"])


def to_entry(found: Signature, units: tuple[Unit, ...]) -> dict[str, Any]:
    """What the data holds of a network, as plain values."""
    return {
        "fingerprint": fingerprint(units),
        "opening": opening(units),
        "features": found.features,
        "eps": found.eps,
        "input_size_px": found.input_size_px,
        "preprocess": found.preprocess,
        "tensors": "\n".join(_lines(found.tensors)),
    }


def _lines(tensors: Mapping[str, Shape]) -> Iterable[str]:
    """A line for each tensor, "NAME SIZES", and one for the four of a batch norm, "NAME.* SIZE"."""
    left = dict(tensors)
    for name, shape in tensors.items():
        module, _, part = name.rpartition(".")
        norm = [f"{module}.{each}" for each in _NORM]
        if name not in left:
            continue
        if part == _NORM[0] and [left.get(each) for each in norm] == [shape] * len(_NORM):
            for each in norm:
                del left[each]
            name = f"{module}.{_EVERY_PART}"
        yield f"{name} {','.join(map(str, shape))}"


def _tensors(lines: str) -> Iterable[tuple[str, Shape]]:
    for line in lines.split("\n"):
        name, _, sizes = line.partition(" ")
        shape = tuple(map(int, sizes.split(","))) if sizes else ()
        if name.endswith(f".{_EVERY_PART}"):
            for part in _NORM:
                yield name.removesuffix(_EVERY_PART) + part, shape
        else:
            yield name, shape


def _matching(wanted: Callable[[Mapping[str, Any]], bool]) -> Iterable[Signature]:
    for name, entry in _data()["networks"].items():
        if wanted(entry):
            yield _signature(name)


@lru_cache(maxsize=64)
def _signature(name: str) -> Signature:
    entry = _data()["networks"][name]
    return Signature(
        name=name,
        tensors=dict(_tensors(entry["tensors"])),
        features=entry["features"],
        eps=entry["eps"],
        input_size_px=entry["input_size_px"],
        preprocess=entry["preprocess"],
    )


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data
