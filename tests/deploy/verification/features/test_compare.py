"""Distances of feature maps: known where the maps are known, the same however they are found."""

from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.bundle.reference import FeatureReference
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.verification.features.compare import (
    FeatureComparison,
    compare_on_images,
    measured,
    replay_maps,
)
from tests.fakes import FakeBackbone

_INPUTS = np.random.default_rng(0).random((20, 3, 8, 8), np.float32)
_GAIN = 1.1
# C3 is off by a tenth of itself
_C3_DB = 20.0


def _checked(found: FeatureComparison, images: int) -> None:
    same, louder = measured(found, "fp32"), measured(found, "int8")
    assert same.images == louder.images == images
    assert same.features["C2"].max_abs == same.features["C3"].max_abs == 0
    assert louder.features["C2"].max_abs == 0
    assert louder.features["C3"].sqnr_db == pytest.approx(_C3_DB, abs=0.01)
    assert louder.features["C3"].cosine == pytest.approx(1, abs=1e-6)
    assert louder.numbers == louder.features["C3"]  # the noisiest
    assert louder.truthful is None and louder.agreement is None


def test_recorded_maps_are_compared_by_name() -> None:
    recorded = FeatureReference(_INPUTS, FakeBackbone().run_all(_INPUTS))
    sessions = {"fp32": FakeBackbone(), "int8": FakeBackbone(_GAIN)}
    found = replay_maps(recorded, sessions)
    _checked(found, 20)
    assert found.paths == ()


def test_images_are_decoded_once_for_all_sessions(colours: Path) -> None:
    paths = tuple(sorted(colours.glob("red/*.png"))[:12])
    sessions = {"reference": FakeBackbone(), "fp32": FakeBackbone(), "int8": FakeBackbone(_GAIN)}
    images, preprocess = Images((*paths, colours / "missing.png"), None), named("half", 8)
    with pytest.raises(InputError, match=r"missing\.png"):
        compare_on_images(images, preprocess, sessions, reference="reference")
    found = compare_on_images(Images(paths, None), preprocess, sessions, reference="reference")
    _checked(found, 12)
    assert found.paths == paths and found.unreadable == ()
    assert {"decode", "reference", "fp32", "int8"} <= found.seconds.keys()


def test_an_image_answered_with_nan_has_no_figures() -> None:
    maps = FakeBackbone().run_all(_INPUTS)
    maps["C3"] = maps["C3"].copy()
    maps["C3"][4, 1, 0, 0] = np.nan
    found = measured(replay_maps(FeatureReference(_INPUTS, maps), {"fp32": FakeBackbone()}), "fp32")
    assert found.not_finite == (4,) and found.numbers is None and not found.features
