"""`reference.npz`: the inputs PyTorch was given and the logits it answered.

It lets a machine without torch prove that its own runtime still gives PyTorch's answers.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.errors import BundleError


@dataclass(frozen=True)
class Reference:
    """Inputs (N, 3, H, W) float32 and PyTorch's logits (N, classes) float32 for them."""

    inputs: NDArray[np.float32]
    logits: NDArray[np.float32]


def write_reference(path: Path, reference: Reference) -> None:
    """Write `reference.npz`; the same arrays always give the same bytes."""
    with path.open("wb") as file:
        np.savez(file, inputs=reference.inputs, logits=reference.logits)


def read_reference(path: Path) -> Reference:
    """Read `reference.npz`.

    Raises:
        BundleError: missing, damaged, or not what `write_reference` writes.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            reference = Reference(arrays["inputs"], arrays["logits"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise BundleError(f"{path}: not a readable reference ({error}): export again") from error
    if len(reference.inputs) != len(reference.logits):
        raise BundleError(
            f"{path}: {len(reference.inputs)} inputs but {len(reference.logits)} logits: "
            "export again"
        )
    return reference
