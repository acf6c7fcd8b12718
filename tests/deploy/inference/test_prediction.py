"""Logits become the most probable classes, or an error where there is no answer."""

import numpy as np
import pytest

from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.inference.prediction import top_predictions


def test_probabilities_of_large_logits_and_ties() -> None:
    labels = ("a", "b", "c", "d")
    found = top_predictions(np.array([1000, -1000, 1000, 999], np.float32), labels, 3)
    assert [p.label for p in found] == ["a", "c", "d"]
    assert found[0].probability == found[1].probability
    assert sum(p.probability for p in found) == pytest.approx(1)


def test_probabilities_are_the_softmax() -> None:
    logits = np.array([0.0, np.log(3.0)], np.float32)
    first, second = top_predictions(logits, ("a", "b"), 2)
    assert (first.label, first.index) == ("b", 1)
    assert (first.probability, second.probability) == pytest.approx((0.75, 0.25), abs=1e-7)


@pytest.mark.parametrize("top", [1, 3, 20, 50])
def test_the_best_are_those_of_a_stable_sort(top: int) -> None:
    # few different values, so that many are equal
    logits = np.random.default_rng(top).integers(0, 6, 20).astype(np.float32)
    found = top_predictions(logits, [str(index) for index in range(20)], top)
    assert [p.index for p in found] == np.argsort(-logits, kind="stable")[:top].tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_give_no_answer(wrong: float) -> None:
    with pytest.raises(GraphError, match="for class 'b', expected finite logits"):
        top_predictions(np.array([0.0, wrong], np.float32), ("a", "b"), 1)
