"""Compares the feature maps of written graphs with PyTorch's, in one pass over the images.

A map z of PyTorch and y of a graph agree if max |y - z| <= 1e-4 · max(1, max |z|), for each map by
itself, since a network's coarse maps can be far smaller than its fine ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.reference import FeatureReference, write_feature_reference
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.images.dataset import Images, evenly_spaced
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.metrics.feature_maps import (
    MapDistances,
    flat_width,
    split_maps,
)
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.session import Session, sizes_of
from resdeploy.deploy.specs import TensorSpec
from resdeploy.deploy.verification.checks.promise import ON_IMAGES, ON_RECORDED
from resdeploy.deploy.verification.features.compare import (
    FeatureComparison,
    distances_from,
    flat,
    joined_distances,
    measured,
    replay_maps,
)
from resdeploy.deploy.verification.features.gates import promised_maps
from resdeploy.deploy.verification.forward_pass import (
    Batch,
    ForwardPass,
    forward_images,
    forward_inputs,
)
from resdeploy.export.proof.images import builtin_inputs
from resdeploy.export.proof.parity import TORCH, rounded

_TOLERANCE = 1e-4  # float32 round-off through a hundred layers stays an order below
_MOST_RECORDED = 32
_RECORDED_BYTES = 20_000_000
_STEP = "comparing feature maps with PyTorch"


@dataclass(frozen=True)
class FeatureParity:
    """Every session's distances from PyTorch's maps.

    Attributes:
        peaks: map's name -> max |z| of PyTorch.
        recorded: some of the inputs with PyTorch's maps, to be replayed on other machines.
        replayed: what every session gave for those inputs.
    """

    compared: FeatureComparison
    peaks: Mapping[str, float]
    recorded: FeatureReference
    replayed: FeatureComparison

    def figures(self, name: str) -> dict[str, Any]:
        """How far `name` is from PyTorch, over all maps and each."""
        maps = self.compared.distances[name]
        each = {key: _figures(apart) for key, apart in maps.items()}
        return {
            "images": self.compared.images,
            "max_abs": max(found["max_abs"] for found in each.values()),
            "sqnr_db": min(found["sqnr_db"] for found in each.values()),
            "features": each,
        }

    def promised(self, names: Iterable[str], *, own_images: bool) -> dict[str, Any]:
        """What a later run is held to (`verification.features.gates`), by variant."""
        of = f"{self.compared.images} images at export"
        return {
            name: {
                ON_IMAGES: promised_maps(measured(self.compared, name), of) if own_images else None,
                ON_RECORDED: promised_maps(measured(self.replayed, name), "the recorded inputs"),
            }
            for name in names
        }

    def accuracy(self) -> dict[str, float]:
        """Empty: a backbone has no classes."""
        return {}

    def write_recorded(self, path: Path) -> None:
        """Write `reference.npz`."""
        write_feature_reference(path, self.recorded)

    def check(self, name: str) -> None:
        """Raise GraphError unless every map is PyTorch's, or anything is not finite."""
        for key, apart in self.compared.distances[name].items():
            limit = _TOLERANCE * max(1.0, self.peaks[key])
            difference = float(apart.max_abs.max())
            if not apart.finite.all():
                raise GraphError(
                    f"{name}.onnx: {key} of image {int((~apart.finite).argmax())} has NaN or "
                    "infinity: look at the checkpoint's weights"
                )
            if difference > limit:
                raise GraphError(
                    f"{name}.onnx: {key} differs from PyTorch by {difference:.3g}, limit: "
                    f"{limit:.3g}; nothing was written: please report the architecture"
                )


@dataclass(frozen=True)
class _Kept:
    """Of a batch: distances, PyTorch's peaks, and the inputs that are recorded with its maps."""

    distances: Mapping[str, Mapping[str, MapDistances]]
    peaks: Mapping[str, float]
    inputs: Float32s
    maps: Mapping[str, Float32s]


def compare_features_with_pytorch(
    sessions: Mapping[str, Session],
    images: Images | None,
    preprocess: Preprocess,
    progress: Progress = silent,
) -> FeatureParity:
    """Run every session, PyTorch's under `TORCH`, on every image, or on the built-in ones.

    As many evenly spaced images are recorded with PyTorch's maps as 20 MB hold, at most 32.

    Raises:
        InputError: more than 5 % of the images cannot be read.
    """
    outputs = sessions[TORCH].outputs
    inputs = builtin_inputs(preprocess) if images is None else None
    total = len(inputs) if inputs is not None else len(images.paths) if images is not None else 0
    chosen = set(evenly_spaced(total, _recorded_images(sessions[TORCH])))

    def keep(batch: Batch) -> _Kept:
        rows = [row for row, position in enumerate(batch.positions) if position in chosen]
        maps = split_maps(batch.logits[TORCH], outputs)
        return _Kept(
            distances_from(batch.logits[TORCH], batch.logits, outputs),
            {name: float(np.abs(values).max()) for name, values in maps.items()},
            batch.inputs[rows],
            {name: values[rows] for name, values in maps.items()},
        )

    if inputs is not None:
        done = forward_inputs(inputs, flat(sessions), keep, step=_STEP, progress=progress)
    else:
        assert images is not None
        done = forward_images(
            images, preprocess, flat(sessions), keep, step=_STEP, progress=progress
        )
    return _parity(done, sessions)


def _parity(done: ForwardPass[_Kept], sessions: Mapping[str, Session]) -> FeatureParity:
    outputs = sessions[TORCH].outputs
    recorded = FeatureReference(
        np.concatenate([batch.inputs for batch in done.kept]),
        {output.name: _recorded(done.kept, output) for output in outputs},
    )
    return FeatureParity(
        FeatureComparison(
            images=len(done.positions),
            paths=(),
            distances=joined_distances([batch.distances for batch in done.kept]),
            unreadable=done.unreadable,
            seconds=done.seconds,
        ),
        {o.name: max(batch.peaks[o.name] for batch in done.kept) for o in outputs},
        recorded,
        replay_maps(recorded, sessions),
    )


def _recorded(batches: Iterable[_Kept], output: TensorSpec) -> Float32s:
    rows = np.concatenate([batch.maps[output.name] for batch in batches])
    return rows.reshape(len(rows), *sizes_of(output))


def _recorded_images(session: Session) -> int:
    values = int(np.prod(sizes_of(session.input))) + flat_width(session.outputs)
    return max(1, min(_MOST_RECORDED, _RECORDED_BYTES // (4 * values)))


def _figures(apart: MapDistances) -> dict[str, float]:
    return {
        "max_abs": rounded(float(apart.max_abs.max())),
        "sqnr_db": round(apart.sqnr_db, 1),
        "cosine": round(float(apart.cosine.mean()), 6),
    }
