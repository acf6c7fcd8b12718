"""What one architecture file says about a checkpoint, and the parts all of them are written with.

An architecture file offers one `Family`: it renames other dialects' parameters to torchvision's
names (`translate`), infers the network from the shapes (`read`) and can say what a network of a
given name would look like (`named`). All three work on names and shapes alone; only
`Network.build` makes modules. Whether the network really fits is decided outside, by comparing
`Network.expected` with what the file has, so `read` may be generous.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Settings = Mapping[str, str]


@dataclass(frozen=True)
class Assumption:
    """Something the weights cannot tell, settable by `--assume KEY=VALUE`.

    Attributes:
        key, default: what is assumed unless the user says otherwise.
        pattern: regular expression a value must match in full.
        sentence: for the user, with {} where the value goes.
        other: another value, shown as the example of how to change it.
    """

    key: str
    default: str
    pattern: str
    sentence: str
    other: str


@dataclass(frozen=True)
class Linear:
    """One linear layer of a head; `name` is its place in a Sequential, "" for a bare layer."""

    name: str
    inputs: int
    outputs: int
    bias: bool


Head = tuple[Linear, ...]  # () is no head: the network yields its pooled features


@dataclass(frozen=True)
class Network:
    """A network inferred from shapes.

    Attributes:
        name: torchvision's name where it has one.
        features: width of the pooled features.
        expected: torchvision parameter name -> shape, `num_batches_tracked` left out.
        build: makes the module (any device, any weights) from the settings of the assumptions.
        evidence: how it was inferred, as sentences.
    """

    name: str
    features: int
    head: Head
    expected: dict[str, Shape]
    build: Callable[[Settings], nn.Module]
    assumptions: tuple[Assumption, ...]
    evidence: tuple[str, ...]
    input_size_px: int = 224
    preprocess: str = "imagenet"

    @property
    def classes(self) -> int | None:
        """Outputs of the last linear layer; None where there is no head."""
        return self.head[-1].outputs if self.head else None


@dataclass(frozen=True)
class Family:
    """One architecture file.

    Attributes:
        name: accepted by `--arch` for any member of the family.
        stems: what the dialects call the weight of the first convolution.
        translate: (shapes) -> {torchvision's name: the checkpoint's name}.
        read: shapes under torchvision's names -> the network, or None if it is not of this family.
        named: (name, head) -> the network torchvision calls so, or None for an unknown name.
        references: names worth comparing with where nothing fits.
    """

    name: str
    stems: tuple[str, ...]
    translate: Callable[[Shapes], dict[str, str]]
    read: Callable[[Shapes], Network | None]
    named: Callable[[str, Head], Network | None]
    references: tuple[str, ...]


_HEAD = re.compile(r"(fc|classifier|linear|head|last_linear)(?:\.(\w+))?\.(weight|bias)")


def translate_head(shapes: Shapes, root: str) -> dict[str, str]:
    """{name with the head called `root`: name in the checkpoint} for every tensor of the head."""
    names = [name for name in shapes if _HEAD.fullmatch(name)]
    return {root + name[name.index(".") :]: name for name in names}


def read_head(shapes: Shapes, root: str) -> Head:
    """The linear layers under `root`, in the order they run."""
    layers = []
    for name, shape in shapes.items():
        match = _HEAD.fullmatch(name)
        if match and match[1] == root and match[3] == "weight" and len(shape) == 2:
            bias = f"{name.removesuffix('weight')}bias" in shapes
            layers.append(Linear(match[2] or "", shape[1], shape[0], bias))
    if all(layer.name.isdecimal() for layer in layers):
        layers.sort(key=lambda layer: int(layer.name))
    return tuple(layers)


def head_shapes(head: Head, root: str, features: int) -> Iterable[tuple[str, Shape]]:
    """Names and shapes of a head that takes `features` inputs, each layer fed by the one before."""
    for layer in head:
        name = f"{root}.{layer.name}".rstrip(".")
        yield f"{name}.weight", (layer.outputs, features)
        if layer.bias:
            yield f"{name}.bias", (layer.outputs,)
        features = layer.outputs


def head_assumptions(head: Head) -> tuple[Assumption, ...]:
    """What stands between linear layers has no weights; dropout does nothing at inference."""
    if not any(_room_between(*pair) for pair in pairwise(head)):
        return ()
    return (
        Assumption(
            "head_activation",
            "relu",
            "relu|none",
            "between the linear layers of the head the activation is {}",
            "none",
        ),
    )


def build_head(head: Head, settings: Settings) -> nn.Module:
    """The head as a module under its own names: Identity, Linear or Sequential."""
    if not head:
        return nn.Identity()
    if len(head) == 1 and not head[0].name:
        return nn.Linear(head[0].inputs, head[0].outputs, bias=head[0].bias)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, layer in enumerate(head):
        layers[layer.name] = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        followed = index + 1 < len(head) and _room_between(layer, head[index + 1])
        if followed and settings["head_activation"] == "relu":
            layers[f"{layer.name}_relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _room_between(layer: Linear, following: Linear) -> bool:
    # fc.0 and fc.3 leave places for ReLU and Dropout in a Sequential, fc.0 and fc.1 leave none.
    if layer.name.isdecimal() and following.name.isdecimal():
        return int(following.name) - int(layer.name) > 1
    return True


def conv_bn(
    conv: str, norm: str, out: int, channels: int, kernel: int
) -> Iterable[tuple[str, Shape]]:
    """A convolution without bias and its batch norm; `channels` is its inputs per group."""
    yield f"{conv}.weight", (out, channels, kernel, kernel)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{part}", (out,)


def is_conv(shapes: Shapes, name: str) -> bool:
    """Whether `name` is a convolution's weight with no empty dimension."""
    shape = shapes.get(name, ())
    return len(shape) == 4 and all(shape)


BN_EPS = Assumption("bn_eps", "1e-5", r"0\.\d+|\d(\.\d+)?e-\d+", "batch-norm eps is {}", "1e-3")


def activation(default: str) -> Assumption:
    """The activation after convolutions: "relu" or "relu6"."""
    other = {"relu": "relu6", "relu6": "relu"}[default]
    return Assumption("activation", default, "relu|relu6", "the activation is {}", other)


def strides(default: str) -> Assumption:
    """The stride of the first block of each stage, e.g. "1,2,2,2"."""
    count = default.count(",")
    return Assumption(
        "strides",
        default,
        rf"[12](,[12]){{{count}}}",
        "the stages have strides {}",
        ",".join([*default.split(",")[:-1], "1" if default.endswith("2") else "2"]),
    )
