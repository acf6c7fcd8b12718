"""A budget is met or missed by more than chance, and says by which figure."""

import pytest

from resdeploy.calibration.repair.budget import Budget, Score


def test_one_flip_among_few_images_is_no_evidence() -> None:
    assert Budget().met(Score(32, 100 * 31 / 32, 30.0), "free")
    assert not Budget().met(Score(1000, 100 * 31 / 32, 30.0), "free")


def test_repairs_that_cost_nothing_aim_higher() -> None:
    score = Score(32, 100.0, 25.0)
    assert Budget().met(score, "costly")
    assert not Budget().met(score, "free")


def test_the_sequential_fit_has_the_highest_aim() -> None:
    score = Score(32, 100.0, 30.0)
    assert Budget().met(score, "free")
    assert not Budget().met(score, "fit")
    assert Budget().met(Score(32, 100.0, 41.0), "fit")
    assert Budget().as_trained().met(score, "fit")


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (Score(32, 100.0, 25.0), None),
        (Score(32, 100.0, 9.0), "SQNR is 9.0 dB, less than 15 dB"),
        (Score(32, 50.0, 20.0), "agreement is 50.0 %, less than 95 %"),
        (Score(32, 100.0, float("nan")), "SQNR is nan dB, less than 15 dB"),
    ],
)
def test_refusal_names_the_figure(score: Score, sentence: str | None) -> None:
    assert Budget().refuses(score) == sentence


def test_labels_leave_nothing_to_repair_for_decibels_alone() -> None:
    assert Budget().by_labels().met(Score(1000, 95.5, 15.5), "costly")
    assert Budget().by_labels().refuses(Score(32, 100.0, 14.0)) is not None
