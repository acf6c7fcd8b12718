"""A backbone in one row: what goes in comes apart again, and closing goes through."""

import numpy as np

from resdeploy.deploy.bundle.manifest import input_spec
from resdeploy.deploy.inference.flat_features import FlatFeatures
from resdeploy.deploy.metrics.feature_maps import split_maps
from tests.fakes import FakeBackbone


def test_all_maps_of_an_image_are_one_row() -> None:
    inputs = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    with FlatFeatures(FakeBackbone()) as flat:
        rows = flat.run(inputs)
        assert rows.shape == (5, 3 * 16 + 2 * 4) and rows.dtype == np.float32
        assert flat.output.shape == ("batch", 56) and flat.outputs == (flat.output,)
        np.testing.assert_array_equal(flat.run_all(inputs)[flat.output.name], rows)
        maps = split_maps(rows, flat.maps)
    np.testing.assert_array_equal(maps["C2"].reshape(5, 3, 4, 4), inputs[:, :, ::2, ::2])
    np.testing.assert_array_equal(maps["C3"].reshape(5, 2, 2, 2), inputs[:, :2, ::4, ::4])


def test_it_is_the_session_that_it_wraps() -> None:
    backbone = FakeBackbone(backend="tensorrt", variant="int8-fp16", threads=3)
    flat = FlatFeatures(backbone)
    assert (flat.backend, flat.variant, flat.threads) == ("tensorrt", "int8-fp16", 3)
    assert flat.input == input_spec(8, 8)
    flat.close()
    assert backbone.closed
