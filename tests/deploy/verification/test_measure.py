"""Figures of five images that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s, Indices
from resdeploy.deploy.metrics.logits import answers, differences
from resdeploy.deploy.verification.evaluation import Evaluation
from resdeploy.deploy.verification.measure import measure

_TRUTH = np.array([0, 0, 1, 1, 2])
_EXPECTED = 2 * np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 2]]  # 4 of 5 right
_GOT = 2 * np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 0]]  # lost 2 (1 and 4), gained 1 (3)


def _evaluation(
    expected: Float32s, got: Float32s, truth: Indices | None, reference: str | None = "fp32"
) -> Evaluation:
    return Evaluation(
        paths=tuple(Path(f"{k}.png") for k in range(len(got))),
        sha256=(),
        truth=truth,
        answers={"fp32": answers(expected, truth), "int8": answers(got, truth)},
        differences={"int8": differences(expected, got)},
        reference=reference,
        unreadable=(),
        seconds={},
    )


def test_paired_figures_by_hand() -> None:
    found = measure(_evaluation(_EXPECTED, _GOT, _TRUTH), "int8")
    assert found.counts is not None and found.truthful is not None and found.reference is not None
    assert (found.counts.lost, found.counts.gained, found.counts.drop) == (2, 1, 20.0)
    assert (found.truthful.top1, found.reference.top1) == (60.0, 80.0)
    assert found.agreement == pytest.approx(40)
    assert found.mcnemar_p == 1.0  # 2 P(B(3, 1/2) <= 1)
    assert [(flip.position, flip.kind) for flip in found.flips] == [
        (1, "lost"), (3, "gained"), (4, "lost"),
    ]  # fmt: skip
    assert [(drop.index, drop.drop) for drop in found.classes] == [(2, 100), (0, 50), (1, -50)]
    assert found.numbers is not None and found.numbers.max_abs == 2
    assert found.numbers.sqnr_db == pytest.approx(10 * np.log10(20 / 24))


def test_without_true_classes_there_is_an_agreement_and_no_accuracy() -> None:
    found = measure(_evaluation(_EXPECTED, _GOT, None), "int8")
    assert found.truthful is None and found.counts is None and found.classes == ()
    assert found.agreement == pytest.approx(40)
    assert {flip.kind for flip in found.flips} == {"changed"}


def test_without_a_reference_there_is_an_accuracy_alone() -> None:
    found = measure(_evaluation(_EXPECTED, _GOT, _TRUTH, None), "int8")
    assert found.truthful is not None and found.truthful.top1 == 60
    assert found.agreement is None and found.counts is None and found.numbers is None


def test_an_answer_of_nan_is_wrong_and_has_no_distance() -> None:
    got = _EXPECTED.copy()
    got[2, 0] = np.nan
    found = measure(_evaluation(_EXPECTED, got, _TRUTH), "int8")
    assert found.not_finite == (2,) and found.numbers is None
    assert found.truthful is not None and found.truthful.top1 == 60
    assert found.to_json()["not_finite"] == 1 and found.to_json()["sqnr_db"] is None
