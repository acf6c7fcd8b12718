"""How far the feature maps of several sessions are from a reference's, in one pass over images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.reference import FeatureReference
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.inference.flat_features import FlatFeatures
from resdeploy.deploy.metrics.bootstrap import sqnr_interval
from resdeploy.deploy.metrics.feature_maps import (
    MapDistances,
    join_map_distances,
    map_distances,
    split_maps,
)
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import TensorSpec
from resdeploy.deploy.verification.accuracy import Accuracy, Numbers
from resdeploy.deploy.verification.forward_pass import (
    Batch,
    ForwardPass,
    forward_images,
    forward_inputs,
)

_Distances = Mapping[str, Mapping[str, MapDistances]]


@dataclass(frozen=True)
class FeatureComparison:
    """Session's name -> feature map's name -> its distances from the reference's maps.

    Attributes:
        images: those that could be read; `paths` are empty for recorded inputs.
        unreadable: the images left out, each with the reason.
        seconds: work done for "decode" and every session, summed over threads.
    """

    images: int
    paths: tuple[Path, ...]
    distances: _Distances
    unreadable: tuple[tuple[Path, str], ...]
    seconds: Mapping[str, float]


def compare_on_images(
    images: Images,
    preprocess: Preprocess,
    sessions: Mapping[str, Session],
    *,
    reference: str,
    progress: Progress = silent,
) -> FeatureComparison:
    """Run every session on every image; `reference` names the one the others are compared with.

    Raises:
        InputError: more than 5 % of the images cannot be read (fewer are left out and listed).
    """
    maps = sessions[reference].outputs

    def keep(batch: Batch) -> _Distances:
        return distances_from(batch.logits[reference], batch.logits, maps)

    done = forward_images(
        images, preprocess, flat(sessions), keep, step="comparing feature maps", progress=progress
    )
    paths = tuple(images.paths[position] for position in done.positions)
    return _joined(done, paths)


def replay_maps(
    recorded: FeatureReference, sessions: Mapping[str, Session], *, progress: Progress = silent
) -> FeatureComparison:
    """Run every session on the recorded inputs and compare with PyTorch's recorded maps."""
    maps = next(iter(sessions.values())).outputs
    rows = [recorded.maps[output.name] for output in maps]

    def keep(batch: Batch) -> _Distances:
        chosen = list(batch.positions)
        expected = [values[chosen].reshape(len(chosen), -1) for values in rows]
        return distances_from(np.concatenate(expected, axis=1), batch.logits, maps)

    step = "replaying PyTorch's recorded feature maps"
    done = forward_inputs(recorded.inputs, flat(sessions), keep, step=step, progress=progress)
    return _joined(done, ())


def flat(sessions: Mapping[str, Session]) -> dict[str, Session]:
    """The sessions with all maps of an image in one row."""
    return {name: FlatFeatures(session) for name, session in sessions.items()}


def distances_from(
    expected: Float32s, rows: Mapping[str, Float32s], maps: Sequence[TensorSpec]
) -> _Distances:
    """Every session's distances, from all maps of an image in one row (N, values)."""
    wanted = split_maps(expected, maps)
    found: dict[str, dict[str, MapDistances]] = {}
    for name, got in rows.items():
        parts = split_maps(got, maps)
        found[name] = {key: map_distances(wanted[key], parts[key]) for key in wanted}
    return found


def joined_distances(parts: Sequence[_Distances]) -> dict[str, dict[str, MapDistances]]:
    """The distances of consecutive batches as one."""
    return {
        name: {key: join_map_distances([part[name][key] for part in parts]) for key in maps}
        for name, maps in parts[0].items()
    }


def measured(comparison: FeatureComparison, name: str, *, seed: int = 0) -> Accuracy:
    """The figures of each map, and as `numbers` those of the noisiest; none where one is NaN."""
    maps = comparison.distances[name]
    finite = np.logical_and.reduce([apart.finite for apart in maps.values()])
    broken = tuple(map(int, np.flatnonzero(~finite)))
    if broken:
        return Accuracy(comparison.images, broken, None)
    numbers = {
        key: Numbers(
            max_abs=float(apart.max_abs.max()),
            sqnr_db=apart.sqnr_db,
            sqnr_ci95=sqnr_interval(apart.signal, apart.noise, seed=seed),
            cosine=float(apart.cosine.mean()),
            kl=None,
        )
        for key, apart in maps.items()
    }
    worst = min(numbers.values(), key=lambda found: found.sqnr_db)
    return Accuracy(comparison.images, (), None, numbers=worst, features=numbers)


def _joined(done: ForwardPass[_Distances], paths: tuple[Path, ...]) -> FeatureComparison:
    return FeatureComparison(
        images=len(done.positions),
        paths=paths,
        distances=joined_distances(done.kept),
        unreadable=done.unreadable,
        seconds=done.seconds,
    )
