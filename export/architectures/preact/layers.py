"""Recognises a pre-activation ResNet by its layers in the order of the file.

One letter stands for each layer (`letters`). A network is then a word:

    network     n? (C or K) N? block… N? (L or P)?
    block       NCNC or NPNCNP, the shortcut's P in front of it or behind, a norm at its end or none

A post-activation network with nothing on its shortcuts is the same word: C NCNC… N L. Where it
widens, it is not taken for one of these, which have a convolution there. Whether the other widths
agree is seen by comparing shapes, as for every reading.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from resdeploy.export.architectures.letters import word_of
from resdeploy.export.architectures.units import Unit

_BASIC = ("NCNC", ("bn1", "conv1", "bn2", "conv2"))
_BOTTLENECK = ("NPNCNP", ("bn1", "conv1", "bn2", "conv2", "bn3", "conv3"))


def by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """{our module name: the file's} for every way in which the layers make such a network."""
    word = word_of(units)
    for (letters, parts), norm, before in product((_BASIC, _BOTTLENECK), ("", "N"), (True, False)):
        block = f"P?{letters}{norm}" if before else f"{letters}{norm}P?"
        found = re.fullmatch(f"(n?)([CK])(N?)((?:{block})+)(N?)([LP]?)", word)
        if found is None:
            continue
        roles = [*parts, "last_bn"] if norm else list(parts)
        names = {
            role: units[found.start(group)].name
            for group, role in enumerate(("input_norm", "conv1", "stem_norm"), start=1)
            if found[group]
        }
        starts = [match.span() for match in re.finditer(block, found[4])]
        offset = found.start(4)
        blocks = [units[offset + start : offset + end] for start, end in starts]
        if not all(len(block) > len(roles) or _keeps_its_width(block) for block in blocks):
            continue
        names |= _blocks(blocks, roles, before=before)
        names |= {
            role: units[found.start(group)].name
            for group, role in ((5, "bn"), (6, "fc"))
            if found[group]
        }
        yield names


def _keeps_its_width(block: Sequence[Unit]) -> bool:
    """As much comes out of the last convolution as the first norm takes in."""
    convs = [unit.shape[0] for unit in block if unit.kind == "conv"]
    return block[0].shape[0] == convs[-1]


def _blocks(
    blocks: Sequence[Sequence[Unit]], roles: Sequence[str], *, before: bool
) -> dict[str, str]:
    """Names of all blocks; a stage begins with a block that has a shortcut convolution."""
    names: dict[str, str] = {}
    stage, index = 1, 0
    for number, block in enumerate(blocks):
        projected = len(block) > len(roles)
        if projected and number:
            stage, index = stage + 1, 0
        order = ["shortcut", *roles] if before and projected else [*roles, "shortcut"]
        for role, unit in zip(order, block, strict=False):
            names[f"layer{stage}.{index}.{role}"] = unit.name
        index += 1
    return names
