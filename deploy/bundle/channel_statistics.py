"""What a network's channels were like in training, in the bundle: `channel_statistics.npz`.

A batch norm says of its output that channel c has mean β_c and standard deviation |γ_c| over the
training images. Once folded, this is the output of the layer in front of it. `quantize` compares
calibration images with it, and can do without images by it. The file is hashed in `proofs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float64s
from resdeploy.deploy.bundle.bundle import Bundle, check_file
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.files import sha256_file

CHANNEL_STATISTICS = "channel_statistics.npz"
_PROOF = "channel_statistics"


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of each channel of one layer's output, (C,)."""

    mean: Float64s
    std: Float64s


def write_channel_statistics(
    folder: Path, manifest: Manifest, statistics: Mapping[str, ChannelStatistics]
) -> Manifest:
    """Write the file into a bundle's folder; returns the manifest that has its hash.

    `statistics`: layer, by the name of its weight in fp32.onnx less ".weight" → its channels.
    """
    if not statistics:
        return manifest
    path = folder / CHANNEL_STATISTICS
    arrays = {}
    for layer, channels in statistics.items():
        arrays[f"{layer}.mean"] = channels.mean.astype(np.float32)
        arrays[f"{layer}.std"] = channels.std.astype(np.float32)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    proof = {"sha256": sha256_file(path), "layers": len(statistics)}
    return replace(manifest, proofs={**manifest.proofs, _PROOF: proof})


def read_channel_statistics(bundle: Bundle) -> dict[str, ChannelStatistics]:
    """What `write_channel_statistics` wrote; empty where the network had no batch norms, or an
    older export wrote none.

    Raises:
        BundleError: the file is missing or altered.
    """
    proof = bundle.manifest.proofs.get(_PROOF)
    if proof is None:
        return {}
    path = bundle.path / CHANNEL_STATISTICS
    check_file(path, proof["sha256"])
    try:
        with np.load(path) as arrays:
            stored = {name: arrays[name].astype(np.float64) for name in arrays.files}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error}): export again") from error
    layers = [name.removesuffix(".mean") for name in stored if name.endswith(".mean")]
    return {x: ChannelStatistics(stored[f"{x}.mean"], stored[f"{x}.std"]) for x in layers}
