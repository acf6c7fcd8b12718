"""Builds the network of a checkpoint as a `torch.nn` module with its weights in place."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.custom import build_custom
from resdeploy.export.checkpoint.modify import apply_settings
from resdeploy.export.checkpoint.tensors import aligned

if TYPE_CHECKING:
    from resdeploy.export.checkpoint.read import Checkpoint


def build_module(checkpoint: "Checkpoint", architecture: Architecture) -> nn.Module:
    """The network with the checkpoint's weights: evaluation mode, float32, no gradients.

    The module shares the checkpoint's memory. Input (N, 3, H, W) float32; output (N, classes)
    logits or (N, features) pooled features.

    Raises:
        CheckpointError: the user's own network does not take these weights.
    """
    found = architecture.fit
    if found is None:
        return build_custom(checkpoint, architecture.name)
    with torch.device("meta"):  # neither allocates nor initialises what is replaced right after
        module = found.network.build(architecture.settings)
        for bias in found.biases:
            conv: Any = module.get_submodule(bias.removesuffix(".bias"))
            conv.bias = nn.Parameter(torch.empty(conv.out_channels))
    state = module.state_dict()  # it also holds the versions that some modules ask for
    for name, parameter in list(state.items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=parameter.dtype)
        else:
            values = checkpoint.tensors[found.names[name]]
            state[name] = aligned(values).reshape(parameter.shape)
    module.load_state_dict(state, assign=True)
    apply_settings(module, architecture.settings)
    return module.requires_grad_(False).eval()
