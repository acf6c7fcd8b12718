"""Opens a checkpoint as a session, so that a deployment can be verified against live PyTorch."""

from pathlib import Path

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.optional import needs
from resdeploy.deploy.session import Session, sizes_of


def open_checkpoint(path: Path, manifest: Manifest) -> tuple[Session, str | None]:
    """A session that runs the checkpoint in PyTorch, and a remark when it is not the exported one.

    Raises:
        CheckpointError: not a checkpoint, or no architecture fits it.
        InputError: it has another number of classes than the bundle.
        MissingDependencyError: torch is not installed.
    """
    with needs("verifying against a checkpoint"):
        from resdeploy.export.checkpoint import read_checkpoint
        from resdeploy.export.identify import build_module, identify
        from resdeploy.export.torch_session import TorchSession
    loaded = read_checkpoint(path)
    own = manifest.model.architecture if ":" in manifest.model.architecture else None
    architecture = identify(loaded, arch=own)
    width = int(manifest.output.shape[1])
    found = architecture.classes or architecture.features
    if found != width:
        raise InputError(
            f"{path}: {architecture.name} with {found} outputs, but the bundle has {width}: "
            "give the checkpoint the bundle was exported from"
        )
    _, height_px, width_px = sizes_of(manifest.input)
    module = build_module(loaded, architecture)
    session = TorchSession(module, size_px=(height_px, width_px), width=width)
    if loaded.sha256 == manifest.model.checkpoint_sha256:
        return session, None
    return session, f"{path} is not the checkpoint the bundle was exported from"
