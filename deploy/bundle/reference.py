"""`reference.npz`: the inputs PyTorch was given and the logits, or feature maps, it answered.

It lets a machine without torch prove that its own runtime still gives PyTorch's answers.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.reading import open_regular
from resdeploy.deploy.specs import FeatureSpec


@dataclass(frozen=True)
class Reference:
    """Inputs (N, 3, H, W) float32 and PyTorch's logits (N, classes) float32 for them."""

    inputs: Float32s
    logits: Float32s


def write_reference(path: Path, reference: Reference) -> None:
    """Write `reference.npz`; the same arrays always give the same bytes."""
    with path.open("wb") as file:
        np.savez(file, inputs=reference.inputs, logits=reference.logits)


def read_reference(path: Path) -> Reference:
    """Read `reference.npz`.

    Raises:
        BundleError: missing, damaged, or not what `write_reference` writes.
    """
    inputs, logits = _read(path, ("inputs", "logits"))
    single = inputs.dtype == np.float32 and logits.dtype == np.float32
    if not single or inputs.ndim != 4 or logits.ndim != 2 or len(inputs) != len(logits):
        raise BundleError(
            f"{path}: got inputs {inputs.dtype} {inputs.shape} and logits {logits.dtype} "
            f"{logits.shape}, expected float32 (N, 3, H, W) and (N, classes): export again"
        )
    return Reference(inputs, logits)


@dataclass(frozen=True)
class FeatureReference:
    """Inputs (N, 3, H, W) float32 and PyTorch's maps (N, C, h, w) float32 for them, by name."""

    inputs: Float32s
    maps: Mapping[str, Float32s]


def write_feature_reference(path: Path, reference: FeatureReference) -> None:
    """Write a backbone's `reference.npz`; the same arrays always give the same bytes."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, inputs=reference.inputs, **reference.maps)


def read_feature_reference(path: Path, features: Sequence[FeatureSpec]) -> FeatureReference:
    """Read a backbone's `reference.npz`, which has a map for each of `features`.

    Raises:
        BundleError: missing, damaged, or of another network.
    """
    inputs, *maps = _read(path, ("inputs", *(feature.name for feature in features)))
    for feature, values in zip(features, maps, strict=True):
        expected = (len(inputs), *map(int, feature.tensor.shape[1:]))
        if values.shape != expected or values.dtype != np.float32:
            raise BundleError(
                f"{path}: got {feature.name} {values.dtype} {values.shape}, expected float32 "
                f"{expected}: export again"
            )
    return FeatureReference(
        inputs, {feature.name: values for feature, values in zip(features, maps, strict=True)}
    )


def _check_stored(archive: zipfile.ZipFile) -> None:
    """Refuse a small file that would grow to gigabytes: ours is not compressed."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("its arrays are compressed")


def _read(path: Path, names: Sequence[str]) -> list[Float32s]:
    try:
        # opened here, because numpy leaves a damaged file open
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            _check_stored(arrays.zip)
            read = [arrays[name] for name in names]
    except Exception as error:
        # numpy and zipfile raise a dozen kinds for damaged files, NotImplementedError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{path}: not a readable reference ({reason}): export again") from error
    for name, values in zip(names, read, strict=True):
        if not np.isfinite(values).all():  # they would count as equal to anything
            raise BundleError(f"{path}: {name} are not all finite numbers: export again")
    return read
