"""What was measured when a variant was made is kept, and a later run is held to it."""

from dataclasses import replace

import pytest

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.checks.promise import (
    Promise,
    promise_gate,
    promise_of,
    read_promise,
    recorded_promise_gate,
)
from tests.deploy.verification.checks.figures import ACCURACY


def _promise(accuracy: Accuracy = ACCURACY) -> Promise:
    fields = promise_of(accuracy, "42 images held back from calibration")
    found = read_promise({"promised": {"int8": {"images": fields}}}, "int8", "images")
    assert found is not None
    return found


def _with_db(db: float, half: float = 0.5) -> Accuracy:
    assert ACCURACY.numbers is not None
    numbers = replace(ACCURACY.numbers, sqnr_db=db, sqnr_ci95=Interval(db - half, db + half))
    return replace(ACCURACY, numbers=numbers)


def test_it_is_read_as_it_was_written() -> None:
    promise = _promise()
    assert (promise.count, promise.sqnr_db, promise.agreement) == (367, 21.3, 98.0)
    assert promise.top1_ci95 == Interval(81.0, 88.4)
    assert promise_of(replace(ACCURACY, numbers=None), "images") is None
    for damaged in ({}, {"promised": 3}, {"promised": {"int8": {"images": {"of": "x"}}}}):
        assert read_promise(damaged, "int8", "images") is None


@pytest.mark.parametrize(
    ("db", "half", "verdict"), [(20.0, 0.5, "pass"), (17.0, 3.0, "pass"), (10.3, 0.7, "fail")]
)
def test_falling_short_of_the_decibels_beyond_doubt_fails(
    db: float, half: float, verdict: str
) -> None:
    gate = promise_gate("int8", "int8", _with_db(db, half), _promise())
    assert gate is not None and (gate.name, gate.verdict) == ("as-promised", verdict)
    if verdict == "fail":
        assert gate.brief == "int8 has 10.3 dB, promised 21.3 (limit 3 less)"
        assert "the file is damaged or another one" in gate.sentence


def test_three_figures_are_one_test() -> None:
    """An agreement just below the promised interval is chance where three figures are looked at."""
    promise = replace(_promise(), agreement_ci95=Interval(92.2, 99.0))
    just = replace(ACCURACY, agreement=89.0, agreement_ci95=Interval(86.0, 92.0))
    gate = promise_gate("int8", "int8", just, promise)
    assert gate is not None and gate.verdict == "pass" and gate.p is not None
    assert gate.sentence.endswith(f"not among 3 figures (p = {gate.p:.2g})")
    # of an agreement alone it would be a failure
    bare = replace(just, numbers=None, truthful=None)
    alone = promise_gate("int8", "int8", bare, promise)
    assert alone is not None and alone.verdict == "fail" and alone.p is not None
    assert gate.p == pytest.approx(3 * alone.p) and alone.p < 0.025 < gate.p


def test_falling_short_of_the_agreement_or_the_accuracy_fails() -> None:
    less = replace(ACCURACY, agreement=86.0, agreement_ci95=Interval(82.0, 89.2))
    gate = promise_gate("int8", "int8", less, _promise())
    assert gate is not None and gate.verdict == "fail" and "86.0 % agreement" in gate.brief
    assert ACCURACY.truthful is not None
    worse = replace(ACCURACY.truthful, top1=61.0, top1_ci95=Interval(56.0, 66.0))
    alone = Accuracy(367, (), worse)  # a lone graph: nothing to compare its logits with
    gate = promise_gate("int8", "int8", alone, _promise())
    assert gate is not None and gate.verdict == "fail"
    assert gate.brief == "int8 has 61.0 % top-1, promised 85.0 %"


def _recorded(precision: Precision, db: float, promise: Promise, backend: Backend) -> Gate:
    return recorded_promise_gate(precision, precision, _with_db(db), promise, backend=backend)


def test_on_the_recorded_inputs_chance_plays_no_part() -> None:
    assert _recorded("int8", 20.4, _promise(), "ort-cpu").verdict == "pass"
    gate = _recorded("int8", 20.2, _promise(), "ort-cpu")
    assert gate.verdict == "fail" and gate.limit == pytest.approx(20.3)
    assert gate.brief == "int8 has 20.2 dB on the 367 recorded inputs, promised 21.3"
    # other hardware rounds otherwise
    assert _recorded("int8", 18.4, _promise(), "tensorrt").verdict == "pass"
    assert _recorded("int8", 18.2, _promise(), "tensorrt").verdict == "fail"


def test_float_variants_may_run_on_hardware_with_fewer_bits() -> None:
    exact = _promise(_with_db(117.0))
    assert exact.sqnr_db == 60  # beyond is round-off
    assert _recorded("fp32", 55.0, exact, "ort-cuda").verdict == "pass"
    assert _recorded("fp32", 40.0, exact, "ort-cuda").verdict == "fail"
    on_images = promise_gate("fp32", "fp32", _with_db(55.0), exact)
    assert on_images is not None and on_images.verdict == "pass"
