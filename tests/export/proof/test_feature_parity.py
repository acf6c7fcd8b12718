"""Parity of feature maps, each by itself, and what of it is recorded for other machines."""

from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.bundle.reference import read_feature_reference
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.images.dataset import Images, evenly_spaced
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.proof.feature_parity import compare_features_with_pytorch
from resdeploy.export.proof.images import builtin_inputs
from resdeploy.export.proof.parity import TORCH
from tests.fakes import FEATURES, FakeBackbone

_HALF = named("half", 8)


def test_every_map_has_figures_and_the_worst_stands_for_all() -> None:
    sessions = {TORCH: FakeBackbone(), "fp32": FakeBackbone(), "int8": FakeBackbone(1.1)}
    parity = compare_features_with_pytorch(sessions, None, _HALF)
    found = parity.figures("int8")
    peak = float(np.abs(FakeBackbone().run(builtin_inputs(_HALF))).max())
    assert parity.peaks["C3"] == pytest.approx(peak)
    assert found["max_abs"] == found["features"]["C3"]["max_abs"] == pytest.approx(peak / 10, 0.01)
    assert found["sqnr_db"] == 20.0 and found["features"]["C2"]["max_abs"] == 0
    assert parity.accuracy() == {}


def test_a_map_that_is_not_pytorchs_is_named() -> None:
    nearly = {TORCH: FakeBackbone(), "fp32": FakeBackbone(1 + 5e-5), "fp16": FakeBackbone(1.001)}
    parity = compare_features_with_pytorch(nearly, None, _HALF)
    parity.check("fp32")
    with pytest.raises(GraphError, match=r"fp16.onnx: C3 differs from PyTorch by .*nothing was"):
        parity.check("fp16")
    broken = {TORCH: FakeBackbone(), "fp32": FakeBackbone(float("nan"))}
    with pytest.raises(GraphError, match=r"fp32.onnx: C3 of image 0 has NaN or infinity"):
        compare_features_with_pytorch(broken, None, _HALF).check("fp32")


def test_evenly_spaced_images_are_recorded_with_pytorchs_maps(faint: Path, tmp_path: Path) -> None:
    images = Images(tuple(sorted(faint.glob("*/*"))), None)
    sessions = {TORCH: FakeBackbone(), "int8": FakeBackbone(1.1)}
    parity = compare_features_with_pytorch(sessions, images, _HALF)
    parity.write_recorded(tmp_path / "reference.npz")
    recorded = read_feature_reference(tmp_path / "reference.npz", FEATURES)
    paths = [images.paths[position] for position in evenly_spaced(len(images.paths), 32)]
    inputs = np.stack([read_input(path, _HALF) for path in paths])
    np.testing.assert_array_equal(recorded.inputs, inputs)
    for name, values in FakeBackbone().run_all(inputs).items():
        np.testing.assert_array_equal(recorded.maps[name], values)


def test_what_is_promised_of_images_is_promised_only_of_the_users_own() -> None:
    sessions = {TORCH: FakeBackbone(), "int8": FakeBackbone(1.1)}
    parity = compare_features_with_pytorch(sessions, None, _HALF)
    builtin = parity.promised(["int8"], own_images=False)["int8"]
    assert builtin["images"] is None
    assert builtin["recorded"]["features"]["C3"]["sqnr_db"] == 20.0
    own = parity.promised(["int8"], own_images=True)["int8"]
    assert (own["images"]["of"], own["images"]["count"]) == ("4 images at export", 4)
