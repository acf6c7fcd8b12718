"""Opens a checkpoint as a session, so that a deployment can be verified against live PyTorch."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resdeploy.deploy.bundle.bundle import is_adopted
from resdeploy.deploy.bundle.manifest import Manifest, ModelFacts
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.optional import needs
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.verification.comparison_target import LiveCheckpoint
from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from torch import nn


def open_checkpoint(path: StrPath, manifest: Manifest) -> LiveCheckpoint:
    """The checkpoint in PyTorch, with a remark when it is not the one that was exported.

    The network is built with the settings that the bundle's was built with. Where the checkpoint
    holds another architecture, its own apply.

    Raises:
        CheckpointError: not a checkpoint, or no architecture fits it.
        InputError: it has another number of classes than the bundle.
        MissingDependencyError: torch is not installed.
    """
    with needs("verifying against a checkpoint"):
        from resdeploy.export.checkpoint.build import build_module
        from resdeploy.export.graph.fold_input import InputAffine
        from resdeploy.export.proof.torch_session import BeforeInputFold, torch_session
    if is_adopted(manifest):
        raise InputError(
            f"{path}: the bundle was adopted from an ONNX graph, not exported from a checkpoint: "
            "leave --checkpoint out"
        )
    loaded = read_checkpoint(Path(path))
    architecture = _as_exported(loaded, manifest.model)
    width = int(manifest.output.shape[1])
    found = architecture.classes or architecture.features
    if found != width and not manifest.features:
        raise InputError(
            f"{path}: {architecture.name} with {found} outputs, but the bundle has {width}: "
            "give the checkpoint the bundle was exported from"
        )
    module = build_module(loaded, architecture)
    if manifest.features:
        module = _as_backbone(module, manifest, f"{path}: {architecture.name}")
    taken_off = manifest.proofs.get("input_fold", {})
    if "scale" in taken_off:
        affine = InputAffine(tuple(taken_off["scale"]), tuple(taken_off["shift"]))
        module = BeforeInputFold(module, affine)
    session = torch_session(module, manifest)
    same = loaded.sha256 == manifest.model.checkpoint_sha256
    remark = None if same else f"{path} is not the checkpoint the bundle was exported from"
    return LiveCheckpoint(session, f"{path} in PyTorch", remark)


def _as_backbone(module: "nn.Module", manifest: Manifest, what: str) -> "nn.Module":
    """The network with the bundle's feature maps as outputs; `what` it is, in the message."""
    from resdeploy.export.architectures.modules.backbone import backbone

    names = [feature.name for feature in manifest.features]
    network, features = backbone(module, names, manifest.preprocess.input_size_px)
    if features != manifest.features:
        raise InputError(
            f"{what} has other feature maps than the bundle: "
            "give the checkpoint the bundle was exported from"
        )
    return network


def _as_exported(checkpoint: Checkpoint, model: ModelFacts) -> Architecture:
    # A bundle from before `arch` was kept names the user's own network by its function.
    named = model.arch or (model.architecture if ":" in model.architecture else None)
    architecture = identify(checkpoint, arch=named)
    if architecture.name != model.architecture:
        return architecture
    return replace(architecture, settings={**architecture.settings, **model.settings})
