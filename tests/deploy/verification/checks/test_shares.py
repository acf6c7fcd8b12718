"""Shares of images with a minimum: agreement and top-1."""

from resdeploy.deploy.verification.checks.shares import agreement_gate, top1_gate
from tests.deploy.verification.checks.figures import ACCURACY


def test_shares_have_a_minimum() -> None:
    gate = agreement_gate("int8", ACCURACY, 95.0, against="PyTorch")
    assert gate.verdict == "pass" and gate.p is not None and gate.p > 0.5
    assert gate.sentence == (
        "agreement is 98.00 % (95 % interval 96.00 to 99.10) on 367 images, minimum: 95 %"
    )
    assert agreement_gate("int8", ACCURACY, 97.0, against="PyTorch").verdict == "inconclusive"
    failed = agreement_gate("int8", ACCURACY, 99.5, against="PyTorch")
    assert failed.verdict == "fail" and failed.p is not None and failed.p < 0.025
    assert failed.brief == "int8 agrees with PyTorch on 98.00 % (minimum 99.5)"


def test_a_reference_that_misses_the_minimum_is_mentioned() -> None:
    assert ACCURACY.truthful is not None
    gate = top1_gate("int8", ACCURACY, ACCURACY.truthful, 90)
    assert gate.verdict == "fail" and gate.sentence.endswith(
        "minimum: 90 %; the reference itself has only 85.60 %"
    )
