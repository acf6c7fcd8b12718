"""What one architecture file says about a checkpoint, and the parts all of them are written with.

An architecture file offers one `Family`. Everything in it works on names and shapes and imports no
torch, so that a checkpoint is recognised before torch is loaded; only `Network.build` makes
modules, and imports `architectures.modules.<family>` inside its function.

A checkpoint is matched in this order, and `matching.fitting` says which way it was:

    names       translate(shapes)    -> {torchvision's tensor name: the file's}
    structure   by_position(units)   -> {torchvision's module name: the file's}, for every way in
                                        which the file's layers, in their order, can be this family
    both        read(shapes)         -> the `Network` that tensors of these names and shapes speak
                                        of; it may be generous, for a comparison follows

A reading fits when the file has exactly `Network.expected`. Neither `read` nor `expected` needs to
care for these, which the comparison allows in every family:

* counters (`num_batches_tracked`) and tensors that match `Network.unused`, e.g. auxiliary heads;
* a bias of a convolution that `expected` lists without one: the module gets it when it is built;
* a shape that differs in dimensions of 1 only, such as a linear layer saved as a 1x1 convolution:
  it is reshaped when it is loaded.

A family of one fixed graph whose widths vary need not walk the units itself: `by_position` can
guess a network from some of them and return `units.in_order(network.expected, units)`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from resdeploy.export.architectures.units import Shape, Shapes, Unit

if TYPE_CHECKING:
    from torch import nn

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Assumption:
    """Something the weights cannot tell, settable by `--assume KEY=VALUE`.

    Attributes:
        key: the setting's name, which `Network.build` finds in its settings.
        values: the values worth trying, the one assumed by default first. They are candidates of
            the batch-norm statistics test; a user may give any value the pattern matches.
        pattern: regular expression a value must match in full.
        sentence: for the user, with {} where the value goes.
    """

    key: str
    values: tuple[str, ...]
    pattern: str
    sentence: str

    @property
    def default(self) -> str:
        """What is assumed unless the user or the checkpoint's sidecar says otherwise."""
        return self.values[0]

    @property
    def other(self) -> str:
        """Another value, shown as the example of how to change it."""
        return self.values[1]

    def with_default(self, value: str) -> "Assumption":
        """The same choice with `value` as the one that is assumed."""
        others = (other for other in self.values if other != value)
        return Assumption(self.key, (value, *others), self.pattern, self.sentence)


def choice(key: str, values: tuple[str, ...], sentence: str) -> Assumption:
    """An assumption with a few named values and no others; the first is the default."""
    return Assumption(key, values, "|".join(re.escape(value) for value in values), sentence)


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
        expected: torchvision parameter name -> shape in the order of the layers,
            `num_batches_tracked` left out.
        build: makes the module (any device, any weights) from the settings of the assumptions.
        assumptions: what the weights cannot tell. `checkpoint.modify` applies bn_eps, activation,
            padding, channels and range to the finished module, so `build` need not; the last three
            are added to every network (`EVERY_NETWORK`) and not listed here.
        evidence: how it was inferred, as sentences.
        unused: regular expressions for torchvision names that only training uses.
        maps_only: an encoder cut off before its last layers: it has feature maps to give, and
            neither logits nor pooled features.
    """

    name: str
    features: int
    head: Head
    expected: dict[str, Shape]
    build: "Callable[[Settings], nn.Module]"
    assumptions: tuple[Assumption, ...]
    evidence: tuple[str, ...]
    input_size_px: int = 224
    preprocess: str = "imagenet"
    unused: tuple[str, ...] = ()
    maps_only: bool = False

    @property
    def classes(self) -> int | None:
        """Outputs of the last linear layer; None where there is no head."""
        return self.head[-1].outputs if self.head else None


@dataclass(frozen=True)
class Habits:
    """What networks under a naming scheme are known to do, other than the family's usual.

    Attributes:
        origin: whose names they are, e.g. "Hugging Face"; "" for none.
        settings: assumption key -> the value that becomes its default.
        preprocess, input_size_px: the usual ones there, or None for the family's.
    """

    origin: str = ""
    settings: Settings = field(default_factory=dict)
    preprocess: str | None = None
    input_size_px: int | None = None


NO_HABITS = Habits()


def no_positions(units: tuple[Unit, ...]) -> Iterable[Mapping[str, str]]:
    """For a family that is recognised by its names only."""
    return ()


def no_habits(shapes: Shapes) -> Habits:
    """For a family all of whose dialects behave alike."""
    return NO_HABITS


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
        by_position: the layers in the order of the file -> {torchvision's module name: the
            file's} for every way in which they can be this family's.
        habits: (shapes under the file's own names, prefix removed) -> what that dialect is known
            to do.
    """

    name: str
    stems: tuple[str, ...]
    translate: Callable[[Shapes], dict[str, str]]
    read: Callable[[Shapes], Network | None]
    named: Callable[[str, Head], Network | None]
    references: tuple[str, ...]
    by_position: Callable[[tuple[Unit, ...]], Iterable[Mapping[str, str]]] = no_positions
    habits: Callable[[Shapes], Habits] = no_habits


_HEAD = re.compile(r"(fc|classifier|linear|head|last_linear)(?:\.(\w+))?\.(weight|bias)")


def translate_head(shapes: Shapes, root: str) -> dict[str, str]:
    """{name with the head called `root`: name in the checkpoint} for every tensor of the head."""
    names = [name for name in shapes if _HEAD.fullmatch(name)]
    return {root + name[name.index(".") :]: name for name in names}


def read_head(shapes: Shapes, root: str) -> Head:
    """The linear layers under `root`, in the order they run; 1x1 convolutions count as linear."""
    layers = []
    for name, shape in shapes.items():
        match = _HEAD.fullmatch(name)
        matrix = len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
        if match and match[1] == root and match[3] == "weight" and matrix:
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
    if not any(room_between(*pair) for pair in pairwise(head)):
        return ()
    sentence = "between the linear layers of the head the activation is {}"
    return (Assumption("head_activation", ("relu", "none"), "relu|none|gelu|silu|tanh", sentence),)


def room_between(layer: Linear, following: Linear) -> bool:
    """Whether something stands between two layers of a Sequential.

    fc.0 and fc.3 leave places for ReLU and Dropout, fc.0 and fc.1 leave none.
    """
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


BN_EPS = Assumption("bn_eps", ("1e-5", "1e-3"), r"0\.\d+|\d(\.\d+)?e-\d+", "batch-norm eps is {}")


DILATED = choice("dilated", ("no", "yes"), "the last stages are dilated instead of strided: {}")


# What no weight of any network tells; every network has these choices without listing them.
EVERY_NETWORK = (
    choice("padding", ("torch", "tf"), "strided convolutions and pools pad as {} does"),
    choice("channels", ("rgb", "bgr"), "the input channels are in {} order"),
    choice("range", ("1", "255"), "pixel values run from 0 to {} before mean and std"),
)


def activation(default: str) -> Assumption:
    """The activation after convolutions: "relu", "relu6", or "silu", which few networks have."""
    relus = Assumption("activation", ("relu", "relu6"), "relu6?|silu", "the activation is {}")
    return relus.with_default(default)


def strides(default: str, *others: str) -> Assumption:
    """The stride of the first block of each stage, e.g. "1,2,2,2".

    `others` are worth trying too, as far as they have as many stages.
    """
    count = default.count(",")
    last = ",".join([*default.split(",")[:-1], "1" if default.endswith("2") else "2"])
    values = (default, *(other for other in others if other.count(",") == count), last)
    pattern = rf"[12](,[12]){{{count}}}"
    return Assumption(
        "strides", tuple(dict.fromkeys(values)), pattern, "the stages have strides {}"
    )
