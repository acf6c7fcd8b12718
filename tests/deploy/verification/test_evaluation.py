"""Evaluations: answers, distances from the reference and hashes, of images and recorded inputs."""

import hashlib
from pathlib import Path

import numpy as np

from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.images.dataset import read_data
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.verification.evaluation import evaluate, replay
from tests.fakes import FakeSession, channel_means

_HALF = named("half", 8)


def test_images_are_answered_and_compared_with_the_reference(colours: Path) -> None:
    images = read_data(colours, ("red", "green", "blue")).spread(30)
    louder = FakeSession(lambda batch: 2 * channel_means(batch))
    found = evaluate(images, _HALF, {"fp32": FakeSession(), "int8": louder}, reference="fp32")
    assert found.paths == images.paths and found.truth is not None
    np.testing.assert_array_equal(found.answers["int8"].index, found.truth)
    assert found.answers["fp32"].top5.all()
    assert not found.differences["fp32"].max_abs.any()
    np.testing.assert_allclose(found.differences["int8"].noise, found.differences["int8"].signal)
    assert found.sha256[7] == hashlib.sha256(images.paths[7].read_bytes()).hexdigest()


def test_without_a_reference_there_are_answers_but_no_distances(colours: Path) -> None:
    images = read_data(colours / "red", ("red", "green", "blue")).spread(3)
    found = evaluate(images, _HALF, {"fp32": FakeSession()}, reference=None)
    assert list(found.answers) == ["fp32"] and found.differences == {} and found.truth is None


def test_replaying_compares_with_the_recorded_logits() -> None:
    inputs = np.random.default_rng(0).random((9, 3, 8, 8), np.float32)
    recorded = Reference(inputs, channel_means(inputs) + np.float32(0.5))
    found = replay(recorded, {"fp32": FakeSession()})
    assert found.reference == "recorded" and found.paths == () and found.truth is None
    np.testing.assert_allclose(found.differences["fp32"].max_abs, 0.5, atol=1e-6)
    np.testing.assert_array_equal(found.answers["recorded"].index, found.answers["fp32"].index)
