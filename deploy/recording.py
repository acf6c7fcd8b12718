"""`reference.npz`: the inputs PyTorch was given and the logits it answered.

It lets a machine without torch prove that its own runtime still gives PyTorch's answers.
"""

from dataclasses import dataclass
from pathlib import Path

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
    except Exception as error:
        # numpy and zipfile raise a dozen kinds for damaged files, NotImplementedError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{path}: not a readable reference ({reason}): export again") from error
    inputs, logits = reference.inputs, reference.logits
    single = inputs.dtype == np.float32 and logits.dtype == np.float32
    if not single or inputs.ndim != 4 or logits.ndim != 2 or len(inputs) != len(logits):
        raise BundleError(
            f"{path}: got inputs {inputs.dtype} {inputs.shape} and logits {logits.dtype} "
            f"{logits.shape}, expected float32 (N, 3, H, W) and (N, classes): export again"
        )
    return reference
