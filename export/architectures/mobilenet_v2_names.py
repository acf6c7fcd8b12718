"""Other names of MobileNetV2's parameters as torchvision's, and its layers' names from their order.

Dialects: torchvision; tonylins' flat blocks (`conv.3` for `conv.1.0`) and `conv` for the last
convolution; timm's `conv_stem`, `blocks.S.B.conv_pw`, `conv_head`; Hugging Face's
`layer.N.expand_1x1`. Every other one is read from the order of its layers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from resdeploy.export.architectures import family as network
from resdeploy.export.architectures.family import Habits
from resdeploy.export.architectures.units import Shapes, Unit, squeezed

STEMS = ("features.0.0.weight", "conv_stem.weight", "conv_stem.first_conv.convolution.weight")
# tonylins numbers a block's layers through (3 and 6 follow activations), torchvision nests them.
_FLAT_WIDENING = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_FLAT_PLAIN = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
_TIMM_WIDENING = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "conv_pwl": "2",
    "bn3": "3",
}
_TIMM_PLAIN = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_HF_STEM = {"first_conv": "0", "conv_3x3": "1.conv.0", "reduce_1x1": "1.conv"}
_HF_BLOCK = {"expand_1x1": "0", "conv_3x3": "1", "reduce_1x1": ""}


def translate(shapes: Shapes) -> dict[str, str]:
    """{torchvision's name: the checkpoint's} for every tensor, whatever the dialect."""
    rename = _from_tonylins
    if "conv_stem.weight" in shapes:
        rename = _from_timm
    elif "conv_stem.first_conv.convolution.weight" in shapes:
        rename = _from_hugging_face
    names = rename(shapes)
    for canonical, name in network.translate_head(shapes, "classifier").items():
        names.pop(name, None)
        names[canonical] = name
    return names


def _from_tonylins(shapes: Shapes) -> dict[str, str]:
    flat = network.is_conv(shapes, "features.1.conv.0.weight")
    blocks = {name.split(".")[1] for name in shapes if re.match(r"features\.\d+\.conv\.", name)}
    names = {}
    for name in shapes:
        parts = name.split(".")
        if flat and len(parts) == 5 and parts[2] == "conv":
            widens = f"features.{parts[1]}.conv.6.weight" in shapes
            parts[3] = (_FLAT_WIDENING if widens else _FLAT_PLAIN).get(parts[3], parts[3])
        elif parts[0] == "conv":
            parts[0] = f"features.{len(blocks) + 1}"
        names[".".join(parts)] = name
    return names


def _from_timm(shapes: Shapes) -> dict[str, str]:
    found = {
        tuple(name.split(".")[1:3]) for name in shapes if re.match(r"blocks\.\d+\.\d+\.", name)
    }
    blocks = sorted(found, key=lambda block: (int(block[0]), int(block[1])))
    index = {block: number for number, block in enumerate(blocks, start=1)}
    ends = {"conv_stem": "0.0", "bn1": "0.1"}
    ends |= {"conv_head": f"{len(blocks) + 1}.0", "bn2": f"{len(blocks) + 1}.1"}
    names = {}
    for name in shapes:
        parts = name.split(".")
        if parts[0] in ends:
            parts[0] = f"features.{ends[parts[0]]}"
        elif parts[0] == "blocks" and len(parts) == 5:
            widens = f"blocks.{parts[1]}.{parts[2]}.conv_pwl.weight" in shapes
            layer = (_TIMM_WIDENING if widens else _TIMM_PLAIN).get(parts[3], parts[3])
            number = index[parts[1], parts[2]]
            parts = [f"features.{number}.conv.{layer}", parts[4]]
        names[".".join(parts)] = name
    return names


def _from_hugging_face(shapes: Shapes) -> dict[str, str]:
    numbers = [int(name.split(".")[1]) for name in shapes if re.match(r"layer\.\d+\.", name)]
    last = max(numbers, default=0) + 3  # the stem and the first block come before layer 0
    names = {}
    for name in shapes:
        parts = name.split(".")
        canonical = name
        if len(parts) == 4 and parts[0] == "conv_stem" and parts[1] in _HF_STEM:
            place = f"features.{_HF_STEM[parts[1]]}"
            canonical = _hf_layer(place, "1" if parts[1] == "reduce_1x1" else "", parts[2:])
        elif len(parts) == 5 and parts[0] == "layer" and parts[2] in _HF_BLOCK:
            inner = _HF_BLOCK[parts[2]]
            place = f"features.{int(parts[1]) + 2}.conv" + (f".{inner}" if inner else "")
            canonical = _hf_layer(place, "" if inner else "2", parts[3:])
        elif len(parts) == 3 and parts[0] == "conv_1x1":
            canonical = _hf_layer(f"features.{last}", "", parts[1:])
        names[canonical] = name
    return names


def _hf_layer(place: str, flat: str, rest: Sequence[str]) -> str:
    """A convolution and its norm lie side by side from number `flat`, or nested as 0 and 1."""
    number = int(flat or "0") + (rest[0] == "normalization")
    return f"{place}.{number}.{rest[1]}"


def habits(shapes: Shapes) -> Habits:
    """What the networks that have such names are known to do."""
    if "conv_stem.first_conv.convolution.weight" in shapes:
        settings = {"padding": "tf", "bn_eps": "1e-3"}
        return Habits("Hugging Face", settings, preprocess="half")
    return Habits()


def by_position(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """{torchvision's module: the file's}: a stem, inverted residuals, a 1x1 convolution, a head.

    A block is 1x1, depthwise, 1x1, or without the first; its shortcut's convolution, which only
    kuangliu's blocks have, follows them.
    """
    weights = [unit for unit in units if unit.kind in ("conv", "linear")]
    norms = [unit for unit in units if unit.kind == "norm"]
    if len(weights) < 4 or weights[0].kind != "conv" or weights[0].shape[1] != 3:
        return
    modules, normed = ["features.0.0"], ["features.0.1"]
    place, number, inputs = 1, 1, weights[0].shape[0]
    while roles := _block(weights, place, inputs):
        inputs = weights[place + sum(not conv.startswith("short") for conv, _ in roles) - 1].shape[
            0
        ]
        modules += [f"features.{number}.{conv}" for conv, _ in roles]
        normed += [f"features.{number}.{norm}" for _, norm in roles]
        place, number = place + len(roles), number + 1
    if number == 1 or place >= len(weights) or weights[place].shape[1:] != (inputs, 1, 1):
        return
    modules.append(f"features.{number}.0")
    normed.append(f"features.{number}.1")
    widths = [unit.shape[0] for unit in weights[: place + 1]]
    heads = weights[place + 1 :]
    if len(heads) > 1 or any(len(squeezed(unit.shape)) != 2 for unit in heads):
        return
    if [norm.shape[0] for norm in norms] == widths:
        modules += ["classifier"] * len(heads)
        names = {module: unit.name for module, unit in zip(modules, weights, strict=True)}
        yield names | {name: norm.name for name, norm in zip(normed, norms, strict=True)}


_WIDENING = (("conv.0.0", "conv.0.1"), ("conv.1.0", "conv.1.1"), ("conv.2", "conv.3"))
_PLAIN = (("conv.0.0", "conv.0.1"), ("conv.1", "conv.2"))
_SHORTCUT = (("shortcut.0", "shortcut.1"),)


def _block(weights: Sequence[Unit], place: int, inputs: int) -> tuple[tuple[str, str], ...]:
    """(convolution, norm) of each layer of the block that begins at `place`; () for none."""
    for roles in (_WIDENING, _PLAIN):
        convs = [unit.shape for unit in weights[place : place + len(roles)]]
        if len(convs) < len(roles) or any(len(shape) != 4 for shape in convs):
            continue
        width = inputs
        if roles is _WIDENING:
            if convs[0][1:] != (inputs, 1, 1):
                continue
            width = convs[0][0]
        out = convs[-1][0]
        if convs[-2] == (width, 1, 3, 3) and convs[-1] == (out, width, 1, 1):
            after = weights[place + len(roles) : place + len(roles) + 1]
            projects = out != inputs and [unit.shape for unit in after] == [(out, inputs, 1, 1)]
            return roles + (_SHORTCUT if projects else ())
    return ()
