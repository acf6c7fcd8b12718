"""A session passes whose logits are the reference's, within what its precision allows."""

from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import REFERENCE
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.inference.self_check import first_references, has_reference, self_check
from tests.fakes import FakeSession, channel_means


@pytest.fixture
def reference() -> Reference:
    """Ten images of 8x8 pixels with what `channel_means` answers."""
    inputs = np.random.default_rng(0).normal(1, 1, (10, 3, 8, 8)).astype(np.float32)
    return Reference(inputs, channel_means(inputs))


def test_the_same_logits_pass_a_few_images_at_a_time(reference: Reference) -> None:
    session = FakeSession()
    outcome = self_check(session, "fp32", reference)
    assert (outcome.passed, outcome.images, outcome.agreement_percent) == (True, 10, 100)
    assert session.batches == [4, 4, 2]  # memory is bounded
    assert str(outcome).endswith("and 100 % agreement on 10 reference images")


@pytest.mark.parametrize(
    ("error", "passing"),
    # SQNR = -20 log10(error): 60, 40, 20 and 2.5 dB, for floors of 45, 25 and 5
    [(1e-3, {"fp32", "fp16", "int8"}), (1e-2, {"fp16", "int8"}), (0.1, {"int8"}), (0.75, set())],
)
def test_each_precision_has_its_floor(
    error: float, passing: set[str], reference: Reference
) -> None:
    session = FakeSession(lambda batch: channel_means(batch) * np.float32(1 + error))
    for precision in ("fp32", "fp16", "int8"):
        outcome = self_check(session, precision, reference)
        assert outcome.passed == (precision in passing)
        assert outcome.sqnr_db == pytest.approx(-20 * np.log10(error), abs=0.1)


def test_other_classes_fail_however_near_the_logits_are(reference: Reference) -> None:
    """The second largest logit raised above the largest by a hair."""
    changed = reference.logits.copy()
    order = np.argsort(changed, axis=1)
    rows = np.arange(len(changed))
    changed[rows, order[:, -2]] = changed[rows, order[:, -1]] + np.float32(1e-4)
    outcome = self_check(FakeSession(), "int8", Reference(reference.inputs, changed))
    assert not outcome.passed and outcome.agreement_percent == 0
    assert outcome.sqnr_db is not None and outcome.sqnr_db > 5


@pytest.mark.parametrize(
    "answer",
    [lambda batch: channel_means(batch) * np.nan, lambda batch: batch.mean(axis=(2, 3))[:, :2]],
)
def test_nonsense_fails_and_is_said(answer: object, reference: Reference) -> None:
    outcome = self_check(FakeSession(answer), "fp32", reference)  # type: ignore[arg-type]
    assert not outcome.passed
    assert str(outcome) == "the logits are not finite, or have the wrong shape (images tried: 10)"


def test_without_a_reference_only_finite_logits_can_be_asked_for() -> None:
    def answer(batch: Float32s) -> Float32s:
        return np.full((len(batch), 3), np.inf, np.float32)

    assert self_check(FakeSession(), "fp32", None).passed
    assert not self_check(FakeSession(answer), "fp32", None).passed


def test_the_first_images_of_a_bundles_reference(tiny_bundle: Path) -> None:
    model = open_model(tiny_bundle)
    assert has_reference(model) and not has_reference(open_model(tiny_bundle / "fp32.onnx"))
    first = first_references(model, most=3)
    assert first is not None and len(first.inputs) == len(first.logits) == 3
    (tiny_bundle / REFERENCE).unlink()
    assert not has_reference(model) and first_references(model) is None
