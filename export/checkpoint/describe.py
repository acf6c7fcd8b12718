"""What a checkpoint is, and how that was inferred: `resdeploy inspect CHECKPOINT`."""

from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import CheckpointError
from resdeploy.deploy.images.preprocess import Preprocess, named, override
from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Plain values for a table or JSON; an architecture that fits nothing is told, not raised.

    The values of large tensors are left unread, but for the file's SHA-256: an export checks them.

    Raises:
        CheckpointError: the file is no checkpoint.
    """
    checkpoint = read_checkpoint(path, checked=False)
    description: dict[str, Any] = {
        "kind": "checkpoint",
        "format": checkpoint.format,
        "wrapper": checkpoint.wrapper,
        "prefix": checkpoint.prefix or None,
        "tensors": len(checkpoint.tensors),
        "sha256": checkpoint.sha256,
        "notes": list(checkpoint.notes),
        "sidecar": checkpoint.sidecar.source if checkpoint.sidecar else None,
        "trained_ranges": len(checkpoint.trained_ranges) or None,
    }
    try:
        architecture = identify(checkpoint)
    except CheckpointError as error:
        return {**description, "architecture": None, "problem": str(error)}
    told = told_preprocess(architecture, checkpoint.sidecar)
    return {
        **description,
        "architecture": architecture.name,
        "family": architecture.family,
        "matched_by": architecture.matched_by,
        "parameters": architecture.parameters,
        "classes": architecture.classes,
        "features": architecture.features,
        "input_size_px": architecture.input_size_px,
        "preprocess": architecture.preprocess if told is None else told.to_json(),
        "evidence": list(architecture.evidence),
        "assumptions": list(architecture.assumptions),
        "extras": list(architecture.extras),
    }


def told_preprocess(architecture: Architecture, sidecar: Sidecar | None) -> Preprocess | None:
    """What a sidecar tells of it, the rest as usual for the family; None where it tells nothing."""
    if sidecar is None or sidecar.preprocess is not None or sidecar.normalization is None:
        return None if sidecar is None else sidecar.preprocess
    mean, std = sidecar.normalization
    usual = named(architecture.preprocess, architecture.input_size_px)
    return override(usual, mean=mean, std=std)
