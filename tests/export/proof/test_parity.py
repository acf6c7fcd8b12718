"""Parity in numbers that can be said by hand, and what is recorded for other machines."""

from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.images.dataset import Images, evenly_spaced, read_data
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.proof.images import builtin_inputs
from resdeploy.export.proof.parity import TORCH, Parity, compare_with_original, rounded
from tests.fakes import FakeSession, channel_means

_HALF = named("half", 8)
_NOTHING = Reference(np.zeros((0, 3, 8, 8), np.float32), np.zeros((0, 3), np.float32))


def _parity(torch_logits: list[list[float]], logits: list[list[float]]) -> Parity:
    found = {TORCH: np.array(torch_logits, np.float32), "fp32": np.array(logits, np.float32)}
    return Parity(found, np.array([0, 1]), _NOTHING)


def test_figures_by_hand() -> None:
    parity = _parity([[3, 1], [0, 2]], [[3.5, 1], [2.25, 2]])
    figures = parity.figures("fp32")
    assert figures == {"images": 2, "max_abs": 2.25, "top1_agreement": 50.0}
    assert parity.accuracy() == {TORCH: 100.0, "fp32": 50.0}


def test_the_tolerance_grows_with_the_logits_and_its_limit_is_said() -> None:
    _parity([[300, 1], [0, 2]], [[300.02, 1], [0, 2]]).check("fp32")
    with pytest.raises(GraphError, match=r"differ from PyTorch by 0.02, limit: 0.0001; nothing"):
        _parity([[0.5, 0], [0, 1]], [[0.52, 0], [0, 1]]).check("fp32")


@pytest.mark.parametrize(("value", "position"), [(np.nan, 0), (np.inf, 1)])
def test_logits_that_are_not_finite_name_the_image(value: float, position: int) -> None:
    logits = [[1.0, 0.0], [0.0, 1.0]]
    logits[position][0] = value
    with pytest.raises(GraphError, match=f"fp32 answers image {position} with NaN or infinity"):
        _parity([[1, 0], [0, 1]], logits).check("fp32")


def test_thirty_two_inputs_are_recorded_with_pytorchs_logits(faint: Path) -> None:
    images = read_data(faint, ("red", "green", "blue"))
    sessions = {TORCH: FakeSession(), "fp32": FakeSession(lambda batch: channel_means(batch) + 1)}
    parity = compare_with_original(sessions, images, _HALF)
    assert parity.logits["fp32"].shape == (90, 3) and parity.truth is not None
    assert parity.figures("fp32")["max_abs"] == 1 and parity.accuracy()["fp32"] == 100
    paths = [images.paths[i] for i in evenly_spaced(90, 32)]
    inputs = np.stack([read_input(path, _HALF) for path in paths])
    np.testing.assert_array_equal(parity.recorded.inputs, inputs)
    np.testing.assert_allclose(parity.recorded.logits, channel_means(inputs), atol=1e-6)
    # decoded once: every session saw the same batches
    assert sorted(sessions[TORCH].batches) == sorted(sessions["fp32"].batches)
    assert sum(sessions[TORCH].batches) == 90


def test_unreadable_images_take_no_part(faint: Path, tmp_path: Path) -> None:
    good = sorted(faint.glob("*/*"))[:39]
    images = Images((*good[:5], tmp_path / "gone.png", *good[5:]), np.arange(40) % 3)
    parity = compare_with_original({TORCH: FakeSession()}, images, _HALF)
    assert len(parity.logits[TORCH]) == 39
    assert parity.truth is not None
    assert parity.truth.tolist() == [k % 3 for k in range(40) if k != 5]


def test_without_images_the_builtin_ones_prove_the_arithmetic() -> None:
    parity = compare_with_original({TORCH: FakeSession()}, None, _HALF)
    np.testing.assert_array_equal(parity.recorded.inputs, builtin_inputs(_HALF))
    assert parity.truth is None and parity.accuracy() == {}


def test_a_proof_keeps_three_digits() -> None:
    assert rounded(2.14159e-05) == 2.14e-05


def test_what_was_measured_is_promised(faint: Path) -> None:
    images = read_data(faint, ("red", "green", "blue"))
    sessions = {TORCH: FakeSession(), "fp16": FakeSession(lambda batch: channel_means(batch) + 1)}
    promised = compare_with_original(sessions, images, _HALF).promised(["fp16"], own_images=True)
    on_images, recorded = promised["fp16"]["images"], promised["fp16"]["recorded"]
    assert (on_images["count"], recorded["count"]) == (90, 32)
    assert on_images["agreement"] == on_images["top1"] == 100 and recorded["top1"] is None
    assert on_images["sqnr_db"] < 20
    builtin = compare_with_original(sessions, None, _HALF).promised(["fp16"], own_images=False)
    assert builtin["fp16"]["images"] is None and builtin["fp16"]["recorded"]["count"] == 4
