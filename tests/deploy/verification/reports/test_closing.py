"""The last line says what failed, in the words of a person."""

from resdeploy.deploy.verification.checks.gate import Gate, not_checked, strictly
from resdeploy.deploy.verification.reports.closing import closing_sentence

_DROP = Gate("baseline", "fp32", "fail", "…", 24.25, brief="fp32 lost 24.25 points against b.json")
_CLASS = Gate("max-class-drop", "fp32", "fail", "…", 40.0, brief="fp32 lost 40 points of class 'a'")
_FINE = Gate("max-drop", "int8", "pass", "…", 0.2, brief="int8 lost 0.20 points")


def test_the_largest_loss_is_named_first() -> None:
    found = closing_sentence("fail", [_CLASS, _FINE, _DROP])
    assert found == "FAILED 2 of 3 checks: fp32 lost 24.25 points against b.json"


def test_a_cause_goes_before_its_effect() -> None:
    cause = Gate("labels", "fp32", "fail", "…", brief="the labels are not in order")
    assert closing_sentence("fail", [_DROP, cause]).endswith("the labels are not in order")


def test_undecided_says_how_many_images_decide() -> None:
    doubt = Gate("max-drop", "int8", "inconclusive", "…", 0.8, brief="b", images_needed=1780)
    skipped = not_checked("min-top1", "all", "why")
    found = closing_sentence("inconclusive", [doubt, _FINE, skipped])
    assert found == "UNDECIDED 1 of 2 checks, 1 not checked: b; use about 1,780 images to decide"


def test_a_pass_says_how_near_it_was() -> None:
    assert closing_sentence("pass", [_FINE]) == "PASSED 1 check: int8 lost 0.20 points"
    assert closing_sentence("pass", []) == "PASSED 0 checks"


def test_what_is_shown_to_fail_goes_before_what_is_undecided_with_strict() -> None:
    doubt = Gate("max-drop", "int8", "inconclusive", "…", 3.1, brief="int8 lost 3.10 points")
    skipped = not_checked("max-drop", "all", "why")
    broken = Gate("as-promised", "int8", "fail", "…", brief="int8 has 10.3 dB, promised 28.6")
    found = closing_sentence("fail", strictly([doubt, skipped, broken]))
    assert found == "FAILED 3 of 3 checks: int8 has 10.3 dB, promised 28.6"
    found = closing_sentence("fail", strictly([skipped]))
    assert found == "FAILED 1 of 1 check: max-drop not checked: why, a failure with --strict"
