"""The linear layers at the end of a classifier."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from resdeploy.export.architectures.family import Head, Settings, room_between

# what `head_activation` may be, besides "none"
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def build_head(head: Head, settings: Settings) -> nn.Module:
    """The head as a module under its own names: Identity, Linear or Sequential.

    `settings["head_activation"]` is read where something stands between two layers.
    """
    if not head:
        return nn.Identity()
    if len(head) == 1 and not head[0].name:
        return nn.Linear(head[0].inputs, head[0].outputs, bias=head[0].bias)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, layer in enumerate(head):
        layers[layer.name] = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        followed = index + 1 < len(head) and room_between(layer, head[index + 1])
        if followed and settings["head_activation"] != "none":
            layers[f"{layer.name}_act"] = _ACTIVATIONS[settings["head_activation"]]()
    return nn.Sequential(layers)
