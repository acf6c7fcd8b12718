"""A feature map must be as near as was promised; the limits by hand."""

from typing import Any

import pytest

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.accuracy import Accuracy, Numbers
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.features.gates import (
    image_gates,
    promised_maps,
    recorded_gates,
)
from tests.fakes import FakeBackbone


def _candidate(precision: Precision = "int8", backend: Backend = "ort-cpu") -> Candidate:
    return Candidate(precision, precision, precision, backend, FakeBackbone())


def _accuracy(sqnr_db: float, cosine: float = 0.999) -> Accuracy:
    numbers = Numbers(0.1, sqnr_db, Interval(sqnr_db - 1, sqnr_db + 1), cosine, None)
    return Accuracy(20, (), None, numbers=numbers, features={"C5": numbers})


def _proofs(kind: str, sqnr_db: float = 30.0, variant: str = "int8") -> dict[str, Any]:
    return {"promised": {variant: {kind: promised_maps(_accuracy(sqnr_db), "20 inputs")}}}


def _recorded(sqnr_db: float, *, backend: Backend = "ort-cpu", cosine: float = 0.999) -> Gate:
    found = _accuracy(sqnr_db, cosine)
    (gate,) = recorded_gates(_candidate(backend=backend), found, _proofs("recorded"))
    return gate


def test_a_promise_is_rounded_and_ends_at_round_off() -> None:
    assert promised_maps(_accuracy(31.26), "20 inputs") == {
        "of": "20 inputs",
        "count": 20,
        "features": {"C5": {"sqnr_db": 31.3, "sqnr_db_ci95": [30.3, 32.3], "cosine": 0.999}},
    }
    exact = promised_maps(_accuracy(140.0, 1.0), "20 inputs")
    assert exact is not None and exact["features"]["C5"]["sqnr_db"] == 60
    assert promised_maps(Accuracy(20, (), None), "20 inputs") is None


@pytest.mark.parametrize(
    ("sqnr_db", "backend", "verdict"),
    [
        (29.1, "ort-cpu", "pass"),
        (28.9, "ort-cpu", "fail"),  # 1 dB on the backend that measured
        (27.1, "tensorrt", "pass"),
        (26.9, "tensorrt", "fail"),  # 3 dB elsewhere
    ],
)
def test_recorded_inputs_must_be_reached_again(
    sqnr_db: float, backend: Backend, verdict: str
) -> None:
    gate = _recorded(sqnr_db, backend=backend)
    assert (gate.name, gate.verdict, gate.guard) == ("features", verdict, True)
    assert ("damaged" in gate.sentence) == (verdict == "fail")


def test_the_cosine_catches_what_loud_images_hide() -> None:
    # 1 dB more noise is 10^0.1 = 1.26 times 1 - cosine: 0.00126
    assert _recorded(30, cosine=0.9988).verdict == "pass"
    assert _recorded(30, cosine=0.9987).verdict == "fail"


def test_other_images_may_fall_short_by_chance() -> None:
    # 3 dB and the widths of both intervals, 1 dB each: 30 - 3 - √2 = 25.6
    for sqnr_db, verdict in ((25.7, "pass"), (25.5, "fail")):
        (gate,) = image_gates(
            _candidate(), _accuracy(sqnr_db), _proofs("images"), against="PyTorch"
        )
        assert gate.verdict == verdict and "from PyTorch's on 20 images" in gate.sentence
        assert gate.limit == pytest.approx(27 - 2**0.5, abs=1e-3)


def test_float_variants_need_no_more_than_their_precisions_floor() -> None:
    proofs = _proofs("recorded", 60.0, "fp16")
    for sqnr_db, verdict in ((26.0, "pass"), (24.0, "fail")):  # the floor is 25 dB
        (gate,) = recorded_gates(_candidate("fp16"), _accuracy(sqnr_db), proofs)
        assert gate.verdict == verdict


def test_what_nothing_is_promised_of_has_the_floor() -> None:
    (gate,) = recorded_gates(_candidate(), _accuracy(6.0, 0.9), {})
    assert (gate.verdict, gate.limit, gate.guard) == ("pass", 5.0, False)
    (gate,) = recorded_gates(_candidate(), _accuracy(4.0, 0.9), {})
    assert gate.verdict == "fail"
