"""The ranges a network was trained with, in the bundle: `trained_ranges.json`, hashed in `proofs`.

Quantization-aware training fixes the grids of activations and weights, and the weights adapt to
them. `export` names them by the tensors of fp32.onnx, `quantize` takes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import TRAINED_RANGES, Bundle, check_file
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.reading import read_json

_PROOF = "trained_ranges"


@dataclass(frozen=True)
class TrainedRanges:
    """Grids of the float graph's tensors.

    Attributes:
        activations: tensor → smallest and largest value that training kept.
        weights: initializer → largest magnitude of each output channel, (C_out,), scale = it / 127.
        unplaced: names in the checkpoint of what has no place in the graph.
    """

    activations: Mapping[str, tuple[float, float]]
    weights: Mapping[str, Float32s]
    unplaced: tuple[str, ...] = ()


def write_trained_ranges(folder: Path, manifest: Manifest, ranges: TrainedRanges) -> Manifest:
    """Write the file into a bundle's folder; returns the manifest that has its hash."""
    path = folder / TRAINED_RANGES
    document = {
        "graph": manifest.variants["fp32"].sha256,
        "activations": {name: list(ends) for name, ends in ranges.activations.items()},
        "weights": {name: peaks.tolist() for name, peaks in ranges.weights.items()},
        "unplaced": list(ranges.unplaced),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    proof = {
        "sha256": sha256_file(path),
        "activations": len(ranges.activations),
        "weights": len(ranges.weights),
        "unplaced": len(ranges.unplaced),
    }
    return replace(manifest, proofs={**manifest.proofs, _PROOF: proof})


def read_trained_ranges(bundle: Bundle) -> TrainedRanges | None:
    """What `write_trained_ranges` wrote, None where the checkpoint had no trained ranges.

    Raises:
        BundleError: the file is missing, altered or of another graph than the bundle's.
    """
    proof = bundle.manifest.proofs.get(_PROOF)
    if proof is None:
        return None
    path = bundle.path / TRAINED_RANGES
    check_file(path, proof["sha256"])
    try:
        document = read_json(path)
        graph = document["graph"]
        ranges = TrainedRanges(
            {
                name: (float(low), float(high))
                for name, (low, high) in document["activations"].items()
            },
            {name: np.asarray(peaks, np.float32) for name, peaks in document["weights"].items()},
            tuple(document["unplaced"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}): export again") from error
    if graph != bundle.manifest.variants["fp32"].sha256:
        raise BundleError(f"{path}: belongs to another fp32.onnx: export again")
    return ranges
