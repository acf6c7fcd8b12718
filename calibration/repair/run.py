"""Runs a graph held in memory on batches; of a backbone, all maps of an image are one row."""

from collections.abc import Sequence

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.images.prefetch import in_order
from resdeploy.deploy.inference.flat_features import FlatFeatures
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.metrics.feature_maps import map_distances, split_maps
from resdeploy.deploy.session import Session, gives_maps, images_at_once
from resdeploy.deploy.specs import TensorSpec, Variant


def logits(graph: bytes, variant: Variant, batches: Sequence[Float32s], threads: int) -> Float32s:
    """The answers (N, classes) of a graph to all batches, run as a session of `variant` runs it.

    Each of the `threads` has images of its own.
    """
    with OrtSession(graph, variant=variant, threads=1, arena=False) as session:
        asked: Session = FlatFeatures(session) if gives_maps(session) else session
        size = images_at_once(session.input)
        pieces = (batch[i : i + size] for batch in batches for i in range(0, len(batch), size))
        return np.concatenate(list(in_order(asked.run, pieces, threads=threads)))


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
