"""Failures that chance explains among many tests are taken back; clear ones stay."""

from dataclasses import replace

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.metrics.paired_score import beyond_p
from resdeploy.deploy.verification.checks.correction import corrected
from resdeploy.deploy.verification.checks.gate import Gate, strictly


def _gate(verdict: str, p: float | None, *, guard: bool = False) -> Gate:
    return Gate("max-drop", "int8", verdict, "s", p=p, guard=guard)  # type: ignore[arg-type]


def test_one_doubtful_failure_among_four_tests_is_undecided() -> None:
    doubtful, clear = _gate("fail", 0.02), _gate("fail", 1e-5)
    rest = [_gate("pass", 0.5), _gate("pass", 0.9)]
    found = corrected([doubtful, clear, *rest])
    assert [gate.verdict for gate in found] == ["inconclusive", "fail", "pass", "pass"]
    assert found[0].sentence.endswith("4 tests may be by chance (Holm's p = 0.06): run again")
    # alone it is a failure
    assert corrected([doubtful])[0].verdict == "fail"


def test_guards_pass_where_there_is_doubt_and_what_is_no_test_stays() -> None:
    found = corrected([_gate("fail", 0.02, guard=True), _gate("pass", 0.9), _gate("fail", None)])
    assert [gate.verdict for gate in found] == ["pass", "pass", "fail"]


def test_a_drop_just_beyond_its_limit_says_how_many_images_decide() -> None:
    """2.4 points (2.05 to 2.75) against 2: clear alone, not among 19 tests."""
    interval, n = Interval(2.05, 2.75), 367
    gate = Gate(
        "max-drop", "int8", "fail", "s", 2.4, interval, 2.0, "int8 lost 2.40 points", images=n,
        p=beyond_p(2.4, interval, 2.0),
    )  # fmt: skip
    rest = [_gate("pass", 0.5)] * 18
    first = corrected([gate, *rest])[0]
    assert corrected([gate])[0].verdict == "fail" and first.verdict == "inconclusive"
    needed = first.images_needed
    assert needed is not None and first.sentence.endswith(f"use about {needed:,} images to decide")
    # with so many images the same drop fails among as many tests, with a tenth fewer it does not
    for images, verdict in ((needed, "fail"), (0.9 * needed, "inconclusive")):
        half = 0.35 * (n / images) ** 0.5
        narrower = Interval(2.4 - half, 2.4 + half)
        again = replace(gate, interval=narrower, p=beyond_p(2.4, narrower, 2.0))
        assert corrected([again, *rest])[0].verdict == verdict
    assert "a failure with --strict" in strictly([first])[0].brief
