"""Says which network a checkpoint holds, and builds it with the checkpoint's weights."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from resdeploy.deploy.errors import CheckpointError, InputError
from resdeploy.export.architectures import FAMILIES
from resdeploy.export.architectures.network import Assumption, Network, Shapes
from resdeploy.export.fitting import Fit, fit, nearest, readings, readings_as, told_differences

if TYPE_CHECKING:
    from resdeploy.export.checkpoint import Checkpoint

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Architecture:
    """What was inferred about a checkpoint.

    Attributes:
        name: torchvision's name where there is one, else e.g. "resnet(2-3-1-2, 8x14d)".
        family: "resnet", "mobilenet_v2", "cifar_resnet", or "custom" for the user's own network.
        classes: outputs of the head, or None: no head, the network yields pooled features.
        features: width of the pooled features; parameters: weights and biases, statistics excluded.
        input_size_px, preprocess: the usual ones of the family, names as in `deploy.preprocess`.
        evidence: how it was inferred; assumptions: what weights cannot tell, each with the option
            that changes it; extras: what in the checkpoint was ignored. All are sentences.
    """

    name: str
    family: str
    classes: int | None
    features: int
    parameters: int
    input_size_px: int
    preprocess: str
    evidence: tuple[str, ...]
    assumptions: tuple[str, ...]
    extras: tuple[str, ...]
    fit: Fit | None = field(repr=False, default=None)
    settings: Mapping[str, str] = field(repr=False, default_factory=dict)


def identify(
    checkpoint: "Checkpoint", *, arch: str | None = None, assume: Mapping[str, str] | None = None
) -> Architecture:
    """Tell which network `checkpoint` holds.

    Args:
        arch: a torchvision or family name the result must agree with; or "module:factory", the
            user's own function that returns the network, importable from the current folder.
        assume: KEY -> VALUE for what the weights cannot tell, e.g. {"stride": "1x1"}.

    Raises:
        CheckpointError: no architecture fits, or not the one named; the nearest one and the first
            tensors that disagree are in the message.
        InputError: an unknown `arch`, or an assumption that this network does not have.
    """
    assume = assume or {}
    if arch is not None and ":" in arch:
        from resdeploy.export.custom import identify_custom

        if assume:
            raise InputError(
                f"--assume cannot change the user's own network {arch}: change it there"
            )
        return identify_custom(checkpoint, arch)
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    found = fit(shapes)
    if arch is not None:
        found = _fit_as(checkpoint, shapes, found, arch)
    if found is None:
        raise _nothing_fits(checkpoint, shapes)
    return _architecture(found, assume)


def build_module(checkpoint: "Checkpoint", architecture: Architecture) -> nn.Module:
    """The network with the checkpoint's weights: evaluation mode, float32, no gradients.

    The module shares the checkpoint's memory. Input (N, 3, H, W) float32; output (N, classes)
    logits or (N, features) pooled features.

    Raises:
        CheckpointError: the user's own network does not take these weights.
    """
    found = architecture.fit
    if found is None:
        from resdeploy.export.custom import build_custom

        return build_custom(checkpoint, architecture.name)
    with torch.device("meta"):  # neither allocates nor initialises what is replaced right after
        module = found.network.build(architecture.settings)
    state = {}
    for name, parameter in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=parameter.dtype)
        else:
            state[name] = checkpoint.tensors[found.names[name]].contiguous()
    module.load_state_dict(state, assign=True)
    _apply(module, architecture.settings)
    return module.requires_grad_(False).eval()


def _fit_as(checkpoint: "Checkpoint", shapes: Shapes, found: Fit | None, arch: str) -> Fit:
    if found is not None and arch in (found.network.name, found.family.name):
        return found
    candidates = list(readings_as(arch, shapes))
    families = [family.name for family in FAMILIES]
    if not candidates and arch in families:
        candidates = [reading for reading in readings(shapes) if reading.family.name == arch]
    elif not candidates:
        known = [name for family in FAMILIES for name in family.references]
        raise InputError(
            f"--arch {arch} is not known: give a torchvision name such as {', '.join(known)}, "
            f"a family ({', '.join(families)}) or module:factory for your own network"
        )
    fitting = [reading for reading in candidates if not reading.differences]
    if fitting:
        return fitting[0]
    told = [f"it is {found.network.name}"] if found else []
    if candidates:
        told.append(told_differences(nearest(candidates, shapes)))
    raise CheckpointError(
        f"{checkpoint.path} is not --arch {arch}: {'; '.join(told) or 'nothing in it looks so'}; "
        "leave --arch out, or give your own network with --arch module:factory"
    )


def _nothing_fits(checkpoint: "Checkpoint", shapes: Shapes) -> CheckpointError:
    candidates = list(readings(shapes))
    for family in FAMILIES:
        for reference in family.references:
            candidates.extend(readings_as(reference, shapes))
    closest = nearest(candidates, shapes)
    told = (
        f"nearest is {closest.network.name} with {closest.shared} in common: "
        f"{told_differences(closest)}"
    )
    if not closest.shared:
        some = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:3])
        families = ", ".join(family.name for family in FAMILIES)
        told = f"none of them is in {families}: the first are {some}"
    return CheckpointError(
        f"{checkpoint.path}: no known architecture has these {len(shapes)} tensors; {told}; "
        "name the architecture with --arch NAME, or give your own with --arch module:factory"
    )


def _architecture(found: Fit, assume: Mapping[str, str]) -> Architecture:
    network = found.network
    settings = _settings(network, assume)
    trained = [shape for name, shape in network.expected.items() if not name.endswith(_STATISTICS)]
    if network.head:
        seen = f"the head is {' then '.join(f'{m.inputs} to {m.outputs}' for m in network.head)}"
    else:
        seen = "there is no head: the network yields its pooled features"
    given = tuple(f"given: {key} is {value}" for key, value in assume.items())
    return Architecture(
        name=network.name,
        family=found.family.name,
        classes=network.classes,
        features=network.features,
        parameters=sum(math.prod(shape) for shape in trained),
        input_size_px=network.input_size_px,
        preprocess=network.preprocess,
        evidence=(*network.evidence, seen, *given),
        assumptions=tuple(
            f"{choice.sentence.format(choice.default)} "
            f"(change with --assume {choice.key}={choice.other})"
            for choice in network.assumptions
            if choice.key not in assume
        ),
        extras=tuple(f"ignored: {name}" for name in found.ignored),
        fit=found,
        settings=settings,
    )


def _settings(network: Network, assume: Mapping[str, str]) -> dict[str, str]:
    choices: dict[str, Assumption] = {choice.key: choice for choice in network.assumptions}
    for key, value in assume.items():
        if key not in choices:
            raise InputError(
                f"--assume {key}={value}: {network.name} has no such choice, "
                f"expected one of {', '.join(choices)}"
            )
        if not re.fullmatch(choices[key].pattern, value):
            raise InputError(
                f"--assume {key}={value} is not understood: "
                f"the default is {key}={choices[key].default}, give e.g. {key}={choices[key].other}"
            )
    return {key: assume.get(key, choice.default) for key, choice in choices.items()}


def _apply(module: nn.Module, settings: Mapping[str, str]) -> None:
    """Set what every family leaves open: the batch norms' eps and the activations."""
    wanted: type[nn.Module] = {"relu": nn.ReLU, "relu6": nn.ReLU6}[settings["activation"]]
    for parent in list(module.modules()):
        if isinstance(parent, nn.BatchNorm2d):
            parent.eps = float(settings["bn_eps"])
        for name, child in parent.named_children():
            in_head = name.endswith("_relu")
            if isinstance(child, nn.ReLU | nn.ReLU6) and type(child) is not wanted and not in_head:
                setattr(parent, name, wanted(inplace=True))
