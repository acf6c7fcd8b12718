"""The user's own network: `--arch module:factory`, the one option that runs the user's code.

`factory` is a function or class that returns an `nn.Module`. It is imported with the current folder
on the path and called with `num_classes=N` if it takes that, N being the rows of the checkpoint's
last matrix, else without arguments. The weights must then fit it exactly.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from resdeploy.deploy.errors import CheckpointError, InputError
from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.tensors import aligned

if TYPE_CHECKING:
    from resdeploy.export.checkpoint.read import Checkpoint


def identify_custom(checkpoint: "Checkpoint", arch: str) -> Architecture:
    """What can be said about the user's network once its weights are in place.

    Raises:
        InputError: no such module or function, or it does not return an `nn.Module`.
        CheckpointError: the function failed, or the checkpoint's tensors are not its tensors.
    """
    module = build_custom(checkpoint, arch)
    linears = [child for child in module.modules() if isinstance(child, nn.Linear)]
    if not linears:
        raise CheckpointError(f"{arch} has no nn.Linear: only classifiers with one can be exported")
    return Architecture(
        name=arch,
        family="custom",
        matched_by="names",
        classes=linears[-1].out_features,
        features=linears[-1].in_features,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        input_size_px=224,
        preprocess="imagenet",
        evidence=(f"built by {arch}; all {len(checkpoint.tensors)} tensors fit it",),
        assumptions=("the last linear layer of the network gives the logits",),
        extras=(),
    )


def build_custom(checkpoint: "Checkpoint", arch: str) -> nn.Module:
    """The user's network with the checkpoint's weights: evaluation mode, float32, no gradients."""
    module = _made(checkpoint, arch)
    try:
        module.load_state_dict(_under_names_of(module, checkpoint))
    except RuntimeError as error:
        told = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(
            f"{checkpoint.path} does not fit {arch}: {'; '.join(told)[:400]}: "
            "let the factory return the very network that was trained"
        ) from error
    return module.float().requires_grad_(False).eval()


def _made(checkpoint: "Checkpoint", arch: str) -> nn.Module:
    with _current_folder_on_path():
        factory = _factory(arch)
        matrices = [tensor for tensor in checkpoint.tensors.values() if tensor.ndim == 2]
        try:
            takes_classes = "num_classes" in inspect.signature(factory).parameters
        except ValueError:  # some callables written in C have no signature
            takes_classes = False
        try:
            if takes_classes and matrices:
                module = factory(num_classes=matrices[-1].shape[0])
            else:
                module = factory()
        except Exception as error:  # the user's code may raise anything
            raise CheckpointError(
                f"{arch} failed: {type(error).__name__}: {error}; it must be callable with "
                "num_classes=N or without arguments"
            ) from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{arch} returned {type(module).__name__}, expected an nn.Module")
    return module


def _factory(arch: str) -> Callable[..., Any]:
    module_name, _, name = arch.partition(":")
    try:
        value = importlib.import_module(module_name)
    except (TypeError, ValueError) as error:  # no name, or one that begins with a dot
        raise InputError(
            f"--arch {arch}: {module_name!r} is no module's name: write module:factory"
        ) from error
    except ImportError as error:
        raise InputError(
            f"--arch {arch}: cannot import {module_name} ({error}): run the command in the folder "
            f"that holds {module_name.partition('.')[0]}.py or install it"
        ) from error
    factory: Any = getattr(value, name, None)
    if not callable(factory):
        raise InputError(f"--arch {arch}: {module_name} has no function {name!r}")
    function: Callable[..., Any] = factory
    return function


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    # A console script's path begins with the script's folder, not with the user's.
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _under_names_of(module: nn.Module, checkpoint: "Checkpoint") -> dict[str, torch.Tensor]:
    """The weights with the prefix put back, as they are, or less what all names begin with."""
    wanted = _weights(module.state_dict())
    tensors = {name: aligned(values) for name, values in checkpoint.tensors.items()}
    given = tensors
    original = {f"{checkpoint.prefix}{name}": own for name, own in tensors.items()}
    while _weights(tensors) != wanted and _weights(original) != wanted:
        first = {name.partition(".")[0] for name in tensors}
        if len(first) != 1 or not all("." in name for name in tensors):
            return given
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    return original if _weights(original) == wanted else tensors


def _weights(names: Iterable[str]) -> set[str]:
    # Checkpoints older than PyTorch 0.4.1 have no num_batches_tracked; torch supplies it.
    return {name for name in names if not name.endswith("num_batches_tracked")}
