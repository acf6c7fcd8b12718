"""Logits: finite, near enough for their precision, and never called PyTorch's when they are not."""

from dataclasses import replace

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.logits import (
    answers_gate,
    finite_gate,
    logits_gate,
    nothing_gate,
)
from tests.deploy.verification.checks.figures import ACCURACY


def test_float_variants_have_a_floor_and_int8_has_none() -> None:
    failed = logits_gate("fp32", "fp32", ACCURACY, whose="PyTorch's", inputs="recorded inputs")
    assert failed is not None and failed.verdict == "fail"
    assert failed.sentence.startswith(
        "logits are 21.3 dB from PyTorch's on 367 recorded inputs (max |Δ| 0.25), "
        "minimum for fp32: 45 dB; the graph is broken"
    )
    assert logits_gate("int8", "int8", ACCURACY, whose="PyTorch's", inputs="images") is None
    nothing = replace(ACCURACY, numbers=None)
    assert logits_gate("fp32", "fp32", nothing, whose="PyTorch's", inputs="images") is None


def test_nan_comes_first_and_names_the_image() -> None:
    gate = finite_gate("int8", Accuracy(3, (1,), truthful=None), ("a.png", "b.png", "c.png"))
    assert gate is not None and (gate.name, gate.verdict) == ("finite", "fail")
    assert gate.sentence == "NaN or infinite logits for 1 of 3 images, the first is b.png"
    assert finite_gate("int8", ACCURACY, ()) is None


def test_int8_without_a_promise_must_at_least_answer_like_the_network() -> None:
    fine = answers_gate("int8", ACCURACY, "PyTorch")
    assert fine is not None and fine.verdict == "pass" and fine.limit == 50
    broken = replace(ACCURACY, images=8, agreement=0.0, agreement_ci95=Interval(0.0, 32.4))
    gate = answers_gate("int8", broken, "PyTorch")
    assert gate is not None and gate.verdict == "fail"
    assert gate.brief == "int8 agrees with PyTorch on 0.0 % on 8 recorded inputs"
    assert answers_gate("int8", Accuracy(8, (), None), "PyTorch") is None


def test_nothing_to_judge_by_is_undecided() -> None:
    assert nothing_gate("int8").verdict == "inconclusive"
