"""Measures between logits, against scikit-learn, scipy and numbers computed by hand."""

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import top_k_accuracy_score

from resdeploy.deploy.metrics import logits as compare

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(200, 10)).astype(np.float32) * 3
Y = (Z + RNG.normal(size=Z.shape) * 0.5).astype(np.float32)
TRUTH = RNG.integers(0, 10, 200)


def test_top1_and_top5_are_scikit_learns() -> None:
    found = compare.answers(Z, TRUTH)
    labels = np.arange(10)
    assert (found.index == TRUTH).mean() == top_k_accuracy_score(TRUTH, Z, k=1, labels=labels)
    assert found.top5.mean() == top_k_accuracy_score(TRUTH, Z, k=5, labels=labels)
    assert compare.top1(Z, TRUTH) == pytest.approx(100 * (Z.argmax(1) == TRUTH).mean())


def test_confidence_and_margin() -> None:
    found = compare.answers(Z)
    assert found.confidence == pytest.approx(special.softmax(Z.astype(float), axis=1).max(axis=1))
    ordered = np.sort(Z.astype(float), axis=1)
    assert found.margin == pytest.approx(ordered[:, -1] - ordered[:, -2])
    assert np.isinf(compare.margins(Z[:, :1])).all()


def test_kl_and_cosine_per_image_are_scipys() -> None:
    found = compare.differences(Z, Y)
    p, q = (special.softmax(logits.astype(float), axis=1) for logits in (Z, Y))
    assert found.kl == pytest.approx(stats.entropy(p, q, axis=1), abs=1e-12)
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(Z, Y, strict=True)]
    assert found.cosine == pytest.approx(cosine, abs=1e-6)


def test_sqnr_by_hand() -> None:
    z = np.array([[3.0, 4.0]], np.float32)  # signal 25
    y = np.array([[3.0, 4.5]], np.float32)  # noise 0.25: 10 log10(100)
    assert compare.sqnr_db(z, y) == pytest.approx(20.0)
    assert compare.max_abs(z, y) == 0.5
    assert compare.sqnr_db(z, z) == compare.IDENTICAL_DB
    assert compare.sqnr_db(np.zeros_like(z), y) == -compare.IDENTICAL_DB


def test_agreement_by_hand_and_ties_go_to_the_smaller_index() -> None:
    z = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]], np.float32)
    y = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 2.0]], np.float32)
    assert compare.agreement(z, y) == 50.0


def test_ties_at_the_fifth_place_count_once() -> None:
    flat = np.zeros((6, 6), np.float32)
    assert compare.answers(flat, np.arange(6)).top5.sum() == 5


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5])
    right = np.array([True, True, False, False, True])
    # bin of 0.9: |0.5 - 0.9| on 4 of 5; bin of 0.5: |1 - 0.5| on 1 of 5
    assert compare.calibration_error(confidence, right) == pytest.approx(100 * (0.32 + 0.1))
    assert compare.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_a_logit_that_is_not_finite_is_found_and_nothing_warns() -> None:
    broken = Z.copy()
    broken[7, 3], broken[9, 0] = np.nan, np.inf
    with np.errstate(all="raise"):
        found = compare.answers(broken, TRUTH)
        compare.differences(Z, broken)
    assert list(np.flatnonzero(~found.finite)) == [7, 9]
    assert not found.top5[[7, 9]].any()


def test_joining_batches_is_comparing_at_once() -> None:
    parts = [compare.differences(Z[a:b], Y[a:b]) for a, b in ((0, 64), (64, 200))]
    whole, joined = compare.differences(Z, Y), compare.join_differences(parts)
    assert joined.noise == pytest.approx(whole.noise)
    pieces = [compare.answers(Z[a:b], TRUTH[a:b]) for a, b in ((0, 1), (1, 200))]
    assert (compare.join_answers(pieces).index == Z.argmax(axis=1)).all()
