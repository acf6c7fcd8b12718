"""Distances of feature maps are what their formulas say."""

import numpy as np
import pytest

from resdeploy.deploy.metrics.feature_maps import join_map_distances, map_distances, split_maps
from resdeploy.deploy.specs import TensorSpec


def _maps(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 3, 5, 6)).astype(np.float32)


def test_distances_are_those_of_the_formulas() -> None:
    z, y = _maps(0), _maps(0) + np.float32(0.1) * _maps(1)
    found = map_distances(z, y)
    flat_z, flat_y = (v.reshape(4, -1).astype(np.float64) for v in (z, y))
    noise, signal = ((flat_y - flat_z) ** 2).sum(), (flat_z**2).sum()
    assert found.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-9)
    norms = np.linalg.norm(flat_z, axis=1) * np.linalg.norm(flat_y, axis=1)
    assert found.cosine == pytest.approx((flat_z * flat_y).sum(axis=1) / norms, abs=1e-12)
    assert found.max_abs == pytest.approx(np.abs(flat_y - flat_z).max(axis=1), abs=1e-9)
    assert found.finite.all()


def test_another_scale_changes_the_sqnr_and_not_the_cosine() -> None:
    found = map_distances(_maps(0), 2 * _maps(0))
    assert found.sqnr_db == pytest.approx(0.0, abs=1e-6)
    assert found.cosine == pytest.approx(np.ones(4), abs=1e-12)


def test_an_image_with_nan_is_not_finite() -> None:
    broken = _maps(0)
    broken[2, 0, 0, 0] = np.nan
    assert map_distances(_maps(0), broken).finite.tolist() == [True, True, False, True]


def test_batches_join_in_order() -> None:
    z, y = _maps(0), _maps(1)
    whole = map_distances(z, y)
    parts = join_map_distances([map_distances(z[:1], y[:1]), map_distances(z[1:], y[1:])])
    for one, other in zip(vars(whole).values(), vars(parts).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_row_is_taken_apart_by_the_outputs() -> None:
    outputs = [
        TensorSpec("C4", ("batch", 2, 2, 2), "float32"),
        TensorSpec("C5", ("batch", 3, 1, 1), "float32"),
    ]
    found = split_maps(np.arange(22, dtype=np.float32).reshape(2, 11), outputs)
    assert found["C4"].tolist() == [list(range(8)), list(range(11, 19))]
    assert found["C5"].tolist() == [[8, 9, 10], [19, 20, 21]]
