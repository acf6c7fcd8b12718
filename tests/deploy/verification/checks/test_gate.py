"""A check's verdict, how several add up, and what --strict makes of them."""

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.verification.checks.gate import (
    Gate,
    not_checked,
    points,
    span,
    strictly,
    worst,
)


def test_the_worst_verdict_wins_and_not_checked_is_none() -> None:
    assert worst([]) == "pass"
    assert worst(["pass", "inconclusive", "pass"]) == "inconclusive"
    assert worst(["inconclusive", "fail", "pass"]) == "fail"
    assert worst(["pass", "not checked"]) == "pass"


def test_strict_fails_what_is_undecided_or_did_not_run() -> None:
    undecided = Gate(
        "max-drop", "int8", "inconclusive", "too few images", brief="int8 lost 0.40 points",
        images_needed=1780,
    )  # fmt: skip
    skipped = not_checked("max-drop", "all", "the true classes are not known")
    passed = Gate("logits", "int8", "pass", "fine")
    found = strictly([undecided, skipped, passed])
    assert [gate.verdict for gate in found] == ["fail", "fail", "pass"]
    assert found[0].sentence == "too few images (a failure with --strict)"
    assert found[0].brief == (
        "int8 lost 0.40 points is undecided, a failure with --strict; use about 1,780 images to "
        "decide"
    )
    assert found[1].sentence.startswith("not checked: the true classes are not known")
    assert found[1].brief == (
        "max-drop not checked: the true classes are not known, a failure with --strict"
    )


def test_nothing_is_less_than_0_00() -> None:
    assert [points(value, "+") for value in (-0.004, 0.004, -0.006)] == ["+0.00", "+0.00", "-0.01"]
    assert span(Interval(-0.001, 1.5)) == "(95 % interval 0.00 to 1.50)"


def test_json_has_the_keys_that_were_agreed_on() -> None:
    gate = Gate("max-drop", "int8", "pass", "fine", 0.123456, Interval(-1, 2.00001), 1.0, "brief")
    assert gate.to_json() == {
        "name": "max-drop",
        "variant": "int8",
        "verdict": "pass",
        "sentence": "fine",
        "value": 0.1235,
        "interval": [-1, 2.0],
        "limit": 1.0,
        "images_needed": None,
    }
