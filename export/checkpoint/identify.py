"""Says which network a checkpoint holds, from names and shapes; torch is not needed."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from resdeploy.deploy.errors import CheckpointError, InputError
from resdeploy.export.architectures import FAMILIES
from resdeploy.export.architectures.constructed.signatures import TIMM_PREFIX
from resdeploy.export.architectures.family import Assumption, Network
from resdeploy.export.architectures.units import Shapes
from resdeploy.export.checkpoint.architecture import Architecture, MatchedBy
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar
from resdeploy.export.matching.fitting import Fit, fits, readings
from resdeploy.export.matching.nearest import (
    every_reading,
    nearest,
    nearest_by_structure,
    readings_as,
    told_differences,
)
from resdeploy.export.matching.strangers import stranger

if TYPE_CHECKING:
    from resdeploy.export.checkpoint.read import Checkpoint

_MATCHED: dict[MatchedBy, str] = {
    "names": "matched by the names of its tensors",
    "structure": "matched by the order and the shapes of its layers: the names are not known",
    "sidecar": "named by the data beside the tensors, which agree",
}
# Below this share of its layers, a network is not like another one at all.
_FEW_ALIKE = 0.25
# timm's networks that share all names and shapes with one that does not blur before it strides.
_ANTI_ALIASED = re.compile(r"^(se)?resne(x)?t(aa|blur)\d")
# What libraries have in the names of networks of one kind, whatever else they write there.
_KINDS = re.compile(
    "alexnet|convnext|densenet|dpn|efficientnet|ghostnet|googlenet|inception|mnasnet|mobilenet|"
    "regnet|res2net|resne|shufflenet|squeezenet|vgg|xception"
)
_STATISTICS = ("running_mean", "running_var")


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
    if arch is not None and ":" in arch and not arch.startswith(TIMM_PREFIX):
        from resdeploy.export.checkpoint.custom import identify_custom

        if assume:
            raise InputError(
                f"--assume cannot change the user's own network {arch}: change it there"
            )
        return identify_custom(checkpoint, arch)
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    candidates = fits(shapes)
    told = checkpoint.sidecar.architecture if checkpoint.sidecar else None
    named = [reading for reading in candidates if reading.network.name == told]
    if arch is None and told is not None and _ANTI_ALIASED.search(told):
        arch = f"{TIMM_PREFIX}{told}"
    if arch is not None:
        return _architecture(_fit_as(checkpoint, shapes, candidates, arch), assume, checkpoint)
    if not candidates:
        raise _nothing_fits(checkpoint, shapes)
    if len(candidates) == 1:
        return _architecture(candidates[0], assume, checkpoint)
    if len(named) != 1:
        raise _ambiguous(checkpoint, candidates)
    return replace(_architecture(named[0], assume, checkpoint), matched_by="sidecar")


def _ambiguous(checkpoint: "Checkpoint", candidates: tuple[Fit, ...]) -> CheckpointError:
    networks = [f"{reading.family.name} ({reading.network.name})" for reading in candidates]
    choices = dict.fromkeys(reading.family.name for reading in candidates)
    if len(choices) < len(candidates):
        choices = dict.fromkeys(reading.network.name for reading in candidates)
    return CheckpointError(
        f"{checkpoint.path}: the names are of no known network, and the order of its layers fits "
        f"{len(networks)}: {' and '.join(networks)}; "
        f"say which with {' or '.join(f'--arch {choice!r}' for choice in choices)}"
    )


def _fit_as(checkpoint: "Checkpoint", shapes: Shapes, known: tuple[Fit, ...], arch: str) -> Fit:
    agreeing = [reading for reading in known if arch in (reading.network.name, reading.family.name)]
    if len(agreeing) == 1:
        return agreeing[0]
    candidates = list(readings_as(arch, shapes))
    families = [family.name for family in FAMILIES]
    if not candidates and arch in families:
        candidates = [reading for reading in readings(shapes) if reading.family.name == arch]
    elif not candidates:
        references = [name for family in FAMILIES for name in family.references]
        raise InputError(
            f"--arch {arch} is not known: give a torchvision name such as {', '.join(references)}, "
            f"a family ({', '.join(families)}) or module:factory for your own network"
        )
    fitting = [reading for reading in candidates if not reading.differences]
    if fitting:
        return fitting[0]
    told = [f"it is {reading.network.name}" for reading in known]
    if candidates:
        told.append(told_differences(nearest(candidates, shapes)))
    raise CheckpointError(
        f"{checkpoint.path} is not --arch {arch}: {'; '.join(told) or 'nothing in it looks so'}; "
        "leave --arch out, or give your own network with --arch module:factory"
    )


def _nothing_fits(checkpoint: "Checkpoint", shapes: Shapes) -> CheckpointError:
    told_by_name = stranger(shapes)
    if told_by_name is not None:
        return CheckpointError(f"{checkpoint.path} is {told_by_name}")
    candidates = list(every_reading(shapes))
    closest = nearest(candidates, shapes)
    told = (
        f"nearest is {closest.network.name} with {closest.shared} in common: "
        f"{told_differences(closest)}"
    )
    alike = nearest_by_structure(candidates, shapes)
    if not closest.shared and alike.layers > _FEW_ALIKE * alike.of:
        told = (
            f"none has a known name; by its layers the nearest is {alike.network.name}, which "
            f"has {alike.layers} of the {alike.of} shapes"
        )
    elif not closest.shared:
        some = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:3])
        told = f"nothing in it is alike: the first are {some}"
    families = ", ".join(family.name for family in FAMILIES)
    return CheckpointError(
        f"{checkpoint.path}: no known architecture has these {len(shapes)} tensors; {told}; "
        f"known are {families}; for your own network write my_network.py with a function "
        "build(num_classes) that returns it, and run "
        f"resdeploy export {checkpoint.path} --arch my_network:build"
    )


def _architecture(found: Fit, assume: Mapping[str, str], checkpoint: "Checkpoint") -> Architecture:
    network, sidecar = found.network, checkpoint.sidecar
    known = {choice.key: choice.pattern for choice in network.assumptions}
    told = {
        key: value
        for key, value in (sidecar.settings.items() if sidecar else ())
        if key in known and key not in assume and re.fullmatch(known[key], value)
    }
    settings = _settings(network, {**told, **assume})
    trained = [shape for name, shape in network.expected.items() if not name.endswith(_STATISTICS)]
    return Architecture(
        name=network.name,
        family=found.family.name,
        matched_by=found.matched_by,
        classes=network.classes,
        features=network.features,
        parameters=sum(math.prod(shape) for shape in trained),
        input_size_px=network.input_size_px,
        preprocess=network.preprocess,
        evidence=(*_evidence(found), *_from_sidecar(network, sidecar, told), *_given(assume)),
        assumptions=(
            *_not_built(network, sidecar, settings),
            *_assumed(network, {**assume, **told}),
        ),
        extras=tuple(f"ignored: {name}" for name in found.ignored),
        fit=found,
        settings=settings,
    )


def _assumed(network: Network, settled: Mapping[str, str]) -> Iterator[str]:
    for choice in network.assumptions:
        if choice.key not in settled:
            yield (
                f"{choice.sentence.format(choice.default)} "
                f"(change with --assume {choice.key}={choice.other})"
            )


def _not_built(
    network: Network, sidecar: Sidecar | None, settings: Mapping[str, str]
) -> Iterator[str]:
    """Dilation changes no shape: a network that cannot have it must not stay silent."""
    told = sidecar.settings.get("dilated", "no") if sidecar else "no"
    if sidecar and told != "no" and "dilated" not in settings:
        yield (
            f"{sidecar.source} says dilated={told}, but this {network.name} is built with strides: "
            "for the one that was trained give --arch module:factory"
        )


def _evidence(found: Fit) -> Iterator[str]:
    network = found.network
    yield _MATCHED[found.matched_by]
    if found.habits.origin:
        settled = [f"{key} {value}" for key, value in found.habits.settings.items()]
        yield f"the names are {found.habits.origin}'s, whose networks have {', '.join(settled)}"
    yield from network.evidence
    if found.biases:
        yield f"{len(found.biases)} convolutions have a bias of their own, which is folded too"
    if network.head:
        yield f"the head is {' then '.join(f'{m.inputs} to {m.outputs}' for m in network.head)}"
    else:
        gives = (
            "has only feature maps to give" if network.maps_only else "yields its pooled features"
        )
        yield (
            f"there is no head: the network {gives}; export with "
            "--features C2,C3,C4,C5 for the feature maps of a backbone"
        )


def _from_sidecar(
    network: Network, sidecar: Sidecar | None, told: Mapping[str, str]
) -> Iterator[str]:
    """What was taken from beside the tensors, and where it contradicts them."""
    if sidecar is None:
        return
    for key, value in told.items():
        yield f"{sidecar.source} says {key}={value}"
    name = sidecar.architecture
    if name == network.name:
        yield f"according to {sidecar.source} it is {name} too"
    elif name and (
        any(family.references and family.named(name, network.head) for family in FAMILIES)
        or _of_another_kind(name, network.name)
    ):
        yield (
            f"according to {sidecar.source} it is {name}, but the tensors are {network.name}'s, "
            "which counts"
        )


def _of_another_kind(told: str, name: str) -> bool:
    """Whether both names say what kind of network it is, and nothing in them agrees."""
    kinds, others = (set(_KINDS.findall(text.lower())) for text in (told, name))
    return bool(kinds and others) and kinds.isdisjoint(others)


def _given(assume: Mapping[str, str]) -> Iterator[str]:
    return (f"given: {key}={value}" for key, value in assume.items())


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
