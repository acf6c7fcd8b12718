"""Runs a graph held in memory on batches; of a backbone, all maps of an image are one row."""

from collections.abc import Sequence

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.inference.flat_features import FlatFeatures
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.metrics.feature_maps import map_distances, split_maps
from resdeploy.deploy.session import Session, gives_maps
from resdeploy.deploy.specs import TensorSpec, Variant


def logits(graph: bytes, variant: Variant, batches: Sequence[Float32s], threads: int) -> Float32s:
    """The answers (N, classes) of a graph to all batches, run as a session of `variant` runs it."""
    with OrtSession(graph, variant=variant, threads=threads) as session:
        asked: Session = FlatFeatures(session) if gives_maps(session) else session
        return np.concatenate([asked.run(batch) for batch in batches])


def worst_map_sqnr_db(expected: Float32s, got: Float32s, maps: Sequence[TensorSpec]) -> float:
    """SQNR in dB of the noisiest of a backbone's maps; NaN where a value is not finite."""
    wanted, found = split_maps(expected, maps), split_maps(got, maps)
    apart = [map_distances(wanted[name], found[name]) for name in wanted]
    if not all(distances.finite.all() for distances in apart):
        return float("nan")
    return min(distances.sqnr_db for distances in apart)


def noise_share(expected: Float32s, got: Float32s, maps: Sequence[TensorSpec]) -> float:
    """Squared error over squared signal, summed over a backbone's maps: each counts alike."""
    wanted, found = split_maps(expected, maps), split_maps(got, maps)
    apart = [map_distances(wanted[name], found[name]) for name in wanted]
    return sum(float(a.noise.sum()) / (float(a.signal.sum()) or 1.0) for a in apart)
