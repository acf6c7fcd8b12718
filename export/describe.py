"""What a checkpoint is, and how that was inferred: `resdeploy inspect CHECKPOINT`."""

from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint import read_checkpoint
from resdeploy.export.identify import identify


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Plain values for a table or JSON; an architecture that fits nothing is told, not raised.

    Raises:
        CheckpointError: the file is no checkpoint.
    """
    checkpoint = read_checkpoint(path)
    description: dict[str, Any] = {
        "kind": "checkpoint",
        "format": checkpoint.format,
        "wrapper": checkpoint.wrapper,
        "prefix": checkpoint.prefix or None,
        "tensors": len(checkpoint.tensors),
        "sha256": checkpoint.sha256,
        "notes": list(checkpoint.notes),
    }
    try:
        architecture = identify(checkpoint)
    except CheckpointError as error:
        return {**description, "architecture": None, "problem": str(error)}
    return {
        **description,
        "architecture": architecture.name,
        "family": architecture.family,
        "parameters": architecture.parameters,
        "classes": architecture.classes,
        "features": architecture.features,
        "input_size_px": architecture.input_size_px,
        "preprocess": architecture.preprocess,
        "evidence": list(architecture.evidence),
        "assumptions": list(architecture.assumptions),
        "extras": list(architecture.extras),
    }
