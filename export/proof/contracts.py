"""A contract is what a checkpoint leaves open: the network's settings and the preprocessing.

`alternatives` changes one thing at a time: every assumption of the network to each other value, and
the preprocessing's mean and std, its way to resize, and its size. Two contracts that differ in more
are reached by changing one thing after the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from resdeploy.deploy.images.normalizations import NORMALIZATIONS, normalization_name
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.export.architectures.family import Assumption

# Keys of what belongs to the preprocessing; all others are `--assume` keys.
NORMALIZATION, RESIZE, INPUT_SIZE = "normalization", "resize", "input_size_px"
PREPROCESS_KEYS = (NORMALIZATION, RESIZE, INPUT_SIZE)

_MARGIN = 256 / 224  # the usual shorter side over the crop
_SIZES_PX = (32, 48, 64, 96, 128, 160, 192, 224, 256, 299, 384)


@dataclass(frozen=True)
class Contract:
    """The network's settings (assumption key -> value) and how an image becomes its input."""

    settings: Mapping[str, str]
    preprocess: Preprocess

    def value(self, key: str) -> str:
        """What this contract says for `key`, in words."""
        if key == NORMALIZATION:
            return normalization_name(self.preprocess)
        if key == RESIZE:
            return _resize_name(self.preprocess)
        if key == INPUT_SIZE:
            return str(self.preprocess.input_size_px[0])
        return self.settings[key]


@dataclass(frozen=True)
class Alternative:
    """A contract that differs from another in one thing: `key`, which has another `value`."""

    key: str
    value: str
    contract: Contract


def alternatives(contract: Contract, assumptions: Sequence[Assumption]) -> tuple[Alternative, ...]:
    """Everything worth trying that is one change away from `contract`."""
    found = []
    for choice in assumptions:
        if choice.key == "head_activation":
            continue  # comes after the last batch norm
        for value in _values(choice, contract.settings[choice.key]):
            settings = {**contract.settings, choice.key: value}
            found.append(Alternative(choice.key, value, replace(contract, settings=settings)))
    own = contract.preprocess
    for key, value, preprocess in (*_normalizations(own), *_resizes(own), *_sizes(own)):
        found.append(Alternative(key, value, replace(contract, preprocess=preprocess)))
    return tuple(found)


def _values(choice: Assumption, current: str) -> Iterable[str]:
    """The other values; of a list of strides every one that differs in one place."""
    known = [value for value in choice.values if value != current]
    if choice.key != "strides":
        return known
    digits = current.split(",")
    other = {"1": "2", "2": "1"}
    flipped = (
        ",".join([*digits[:at], other.get(digit, "1"), *digits[at + 1 :]])
        for at, digit in enumerate(digits)
    )
    return dict.fromkeys([*flipped, *known])


def _normalizations(own: Preprocess) -> Iterator[tuple[str, str, Preprocess]]:
    for name, (mean, std) in NORMALIZATIONS.items():
        if name != normalization_name(own):
            yield NORMALIZATION, name, replace(own, name=_changed(own), mean=mean, std=std)


def _resizes(own: Preprocess) -> Iterator[tuple[str, str, Preprocess]]:
    size = own.input_size_px
    shorter = min(size)
    ways: dict[str, tuple[int | tuple[int, int], tuple[int, int] | None]] = {
        "shorter side, crop with margin": (round(shorter * _MARGIN), size),
        "shorter side, crop without margin": (shorter, size),
        "both sides": (size, None),
    }
    for name, (resize_px, crop_px) in ways.items():
        if name != _resize_name(own):
            changed = replace(own, name=_changed(own), resize_px=resize_px, crop_px=crop_px)
            yield RESIZE, name, changed


def _sizes(own: Preprocess) -> Iterator[tuple[str, str, Preprocess]]:
    """The next two sizes below and the next one above, resized in the same way."""
    height, width = own.input_size_px
    if height != width:
        return
    smaller = [size for size in _SIZES_PX if size < height][-2:]
    larger = [size for size in _SIZES_PX if size > height][:1]
    for size in (*smaller, *larger):
        resize_px: int | tuple[int, int] | None = own.resize_px
        if isinstance(own.resize_px, int):
            resize_px = round(own.resize_px * size / height)
        elif own.resize_px is not None:
            resize_px = (size, size)
        crop_px = None if own.crop_px is None else (size, size)
        if resize_px is not None:
            name = _changed(own)
            yield (
                INPUT_SIZE,
                str(size),
                replace(own, name=name, resize_px=resize_px, crop_px=crop_px),
            )


def _changed(own: Preprocess) -> str:
    """The name `deploy.images.preprocess.override` gives a changed preprocessing."""
    return f"{own.name.removesuffix(' (changed)')} (changed)"


def _resize_name(own: Preprocess) -> str:
    if isinstance(own.resize_px, tuple):
        return "both sides" if own.crop_px is None else "both sides, crop"
    if own.resize_px is None:
        return "none, crop"
    margin = own.resize_px / min(own.input_size_px)
    return f"shorter side, crop with{'out' if margin < 1.02 else ''} margin"
