"""Torchvision's names for a residual network's layers from their order and shapes alone.

The convolutions are read as a sentence: a stem, then blocks, then a head. A block is two 3x3
convolutions or 1x1, 3x3, 1x1, then perhaps squeeze and excitation or a convolution along the
channels (ECA); the convolution of its shortcut stands before or after them, the same way throughout
the file. A stage begins where a shortcut has a convolution or the width changes. Norms stand in the
order of their convolutions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from resdeploy.export.architectures.residual import BLOCK_CONVS, DEEP_STEM
from resdeploy.export.architectures.units import Unit, squeezed

_COLOURS = 3
_DEEP = len(DEEP_STEM)


@dataclass(frozen=True)
class _Read:
    """One block: where it ends, what comes out, and the roles of its layers in file order."""

    end: int
    out: int
    roles: tuple[str, ...]

    @property
    def projects(self) -> bool:
        return "downsample.0" in self.roles


# weiaicunzai's with stochastic depth multiplies its residuals, and no weight says by how much
_STOCHASTIC_DEPTH = "conv2_x.0.residual.0"


def by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """{torchvision's module: the file's}, for every way the layers can be a residual network's."""
    if any(unit.name.endswith(_STOCHASTIC_DEPTH) for unit in units):
        return
    weights = [unit for unit in units if unit.kind in ("conv", "conv1d", "linear")]
    norms = [unit for unit in units if unit.kind == "norm"]
    seen: list[dict[str, str]] = []
    for stem in (_DEEP, 1):
        for first in (False, True):
            names = _named(weights, norms, stem, shortcut_first=first)
            for variant in () if names is None else _shortcuts(names):
                if variant not in seen:
                    seen.append(variant)
                    yield variant


def _shortcuts(names: dict[str, str]) -> Iterable[dict[str, str]]:
    """With shortcuts as torchvision's, and after a deep stem also with an average pool in them.

    In a Sequential the pool is number 0 and the convolution number 1; other names tell nothing.
    """
    own = {name.rpartition(".")[2] for module, name in names.items() if "downsample.0" in module}
    if own != {"1"} or DEEP_STEM[0][0] not in names:
        yield names
    if own != {"0"} and own and DEEP_STEM[0][0] in names:
        pooled = {".downsample.0": ".downsample.1", ".downsample.1": ".downsample.2"}
        yield {
            next((m.replace(old, new) for old, new in pooled.items() if old in m), m): name
            for m, name in names.items()
        }


def _named(
    weights: Sequence[Unit], norms: Sequence[Unit], stem: int, *, shortcut_first: bool
) -> dict[str, str] | None:
    if not _is_stem(weights, stem):
        return None
    pairs = DEEP_STEM if stem == _DEEP else (("conv1", "bn1"),)
    modules = [conv for conv, _ in pairs]
    normed = [norm for _, norm in pairs]
    widths = [weights[place].shape[0] for place in range(stem)]
    inputs, place, stage, index = widths[-1], stem, 1, -1
    while block := _block(weights, place, inputs, shortcut_first=shortcut_first):
        begins = index >= 0 and (block.projects or block.out != inputs)
        stage, index = (stage + 1, 0) if begins else (stage, index + 1)
        for role, unit in zip(block.roles, weights[place : block.end], strict=True):
            modules.append(f"layer{stage}.{index}.{role}")
            if not role.startswith("se."):
                normed.append(_norm_of(modules[-1]))
                widths.append(unit.shape[0])
        inputs, place = block.out, block.end
    heads = _heads(weights[place:], inputs) if index >= 0 else None
    if heads is None or [norm.shape[0] for norm in norms] != widths:
        return None
    modules += heads
    names = {module: unit.name for module, unit in zip(modules, weights, strict=True)}
    names.update({name: norm.name for name, norm in zip(normed, norms, strict=True)})
    return names


def _norm_of(conv: str) -> str:
    if conv.endswith("downsample.0"):
        return f"{conv.removesuffix('0')}1"
    return conv.replace(".conv", ".bn")


def _is_stem(weights: Sequence[Unit], count: int) -> bool:
    if len(weights) <= count or any(unit.kind != "conv" for unit in weights[:count]):
        return False
    inputs = _COLOURS
    for unit in weights[:count]:
        if unit.shape[1] != inputs:
            return False
        inputs = unit.shape[0]
    # Three 3x3 convolutions of one width are a stem and a basic block; a deep stem widens.
    kernels = {unit.shape[2] for unit in weights[:count]}
    return count == 1 or (kernels == {3} and weights[2].shape[0] > weights[0].shape[0])


def _block(
    weights: Sequence[Unit], place: int, inputs: int, *, shortcut_first: bool
) -> _Read | None:
    """The block that begins at `place`, with its shortcut's convolution where the file has it."""
    if shortcut_first and place < len(weights) and _is_projection(weights[place], inputs):
        body = _body(weights, place + 1, inputs)
        if body is not None and body.out == weights[place].shape[0]:
            return _Read(body.end, body.out, ("downsample.0", *body.roles))
    body = _body(weights, place, inputs)
    if body is None or shortcut_first or body.end >= len(weights):
        return body
    after = weights[body.end]
    if after.kind == "conv" and _is_projection(after, inputs) and after.shape[0] == body.out:
        again = body.out == inputs and _body(weights, body.end, body.out) is not None
        if not again:
            return _with_squeeze(weights, body.end + 1, body.out, (*body.roles, "downsample.0"))
    return body


def _is_projection(unit: Unit, inputs: int) -> bool:
    """A 1x1 convolution, or where it changes the width perhaps a 3x3 one (SENet-154)."""
    if unit.kind != "conv" or unit.shape[1] != inputs:
        return False
    return unit.shape[2:] == (1, 1) or (unit.shape[2:] == (3, 3) and unit.shape[0] != inputs)


def _body(weights: Sequence[Unit], place: int, inputs: int) -> _Read | None:
    """The convolutions of a block and what attends to their channels."""
    for kernels in ((1, 3, 1), (3, 3)):
        units = weights[place : place + len(kernels)]
        if len(units) == len(kernels) and _follow(units, kernels, inputs):
            out, end = units[-1].shape[0], place + len(kernels)
            if len(kernels) == 2 and units[0].shape[0] != out:
                return None  # a plain stack of convolutions (VGG), which widens anywhere
            return _with_squeeze(weights, end, out, BLOCK_CONVS[: len(kernels)])
    return None


def _with_squeeze(weights: Sequence[Unit], end: int, out: int, roles: tuple[str, ...]) -> _Read:
    """The block that ends at `end`, or behind the attention that follows."""
    if "se.conv" not in roles and end < len(weights) and weights[end].kind == "conv1d":
        return _Read(end + 1, out, (*roles, "se.conv"))
    if "se.fc1" not in roles and _is_squeeze(weights[end : end + 2], out):
        return _Read(end + 2, out, (*roles, "se.fc1", "se.fc2"))
    return _Read(end, out, roles)


def _follow(units: Sequence[Unit], kernels: tuple[int, ...], inputs: int) -> bool:
    for unit, kernel in zip(units, kernels, strict=True):
        if unit.kind != "conv" or unit.shape[2:] != (kernel, kernel):
            return False
        out, channels = unit.shape[:2]
        if inputs % channels or out % (inputs // channels):
            return False
        inputs = out
    return True


def _is_squeeze(units: Sequence[Unit], out: int) -> bool:
    if len(units) < 2 or "bias" not in units[0].parts or units[0].shape[0] >= out:
        return False
    shapes = [squeezed(unit.shape) for unit in units]
    return shapes == [(units[0].shape[0], out), (out, units[0].shape[0])]


def _heads(weights: Sequence[Unit], features: int) -> list[str] | None:
    """Names of the linear layers at the end, under their own numbers where they have some."""
    names: list[str] = []
    inputs = {features, 2 * features}
    for unit in weights:
        if len(squeezed(unit.shape)) != 2 or unit.shape[1] not in inputs:
            return None
        inputs = {unit.shape[0]}
        names.append(unit.name.rpartition(".")[2])
    if len(names) < 2:
        return ["fc"] * len(names)
    numbered = all(name.isdecimal() for name in names) and len(set(names)) == len(names)
    return [f"fc.{name if numbered else 3 * place}" for place, name in enumerate(names)]
