"""Figures in JSON: rounded, and None where they are not known."""

import json
from dataclasses import replace

import pytest

from resdeploy.deploy.metrics.calibrated_drop import DropEstimate
from resdeploy.deploy.metrics.intervals import Interval, Paired
from resdeploy.deploy.verification.accuracy import Accuracy, Flip, Numbers, Truthful

_NUMBERS = Numbers(0.123456789, 31.23456, Interval(30, 32), 0.9999999999, 0.00123)
_FOUND = Accuracy(
    images=200,
    not_finite=(),
    truthful=Truthful(90.12345, Interval(85, 94), 99.5, 2.5),
    agreement=98.5,
    agreement_ci95=Interval(96, 100),
    flips=(Flip(3, "lost", 1, 1, 0.9, 0, 0.8), Flip(5, "changed", None, 1, 0.9, 0, 0.8)),
    numbers=_NUMBERS,
)


def test_what_is_not_known_is_none_and_the_rest_is_rounded() -> None:
    found = json.loads(json.dumps(_FOUND.to_json()))
    assert found["top1"] == pytest.approx(90.12345, abs=6e-5)
    assert found["sqnr_db"] == pytest.approx(31.23456, abs=6e-5)
    assert found["sqnr_db_ci95"] == [30, 32]
    assert found["flips"] == {"lost": 1, "gained": 0, "changed": 1}
    for key in ("drop", "drop_ci95", "mcnemar_p", "top1_reference", "ece_rise"):
        assert found[key] is None
    bare = Accuracy(3, (0, 2), None).to_json()
    assert (bare["top1"], bare["sqnr_db"], bare["not_finite"]) == (None, None, 2)


def test_feature_maps_are_listed_one_by_one() -> None:
    found = replace(_FOUND, features={"C2": _NUMBERS, "C5": replace(_NUMBERS, sqnr_db=12.0)})
    maps = found.to_json()["features"]
    assert {name: figures["sqnr_db"] for name, figures in maps.items()} == {
        "C2": pytest.approx(31.23456, abs=6e-5), "C5": 12,
    }  # fmt: skip
    assert "features" not in _FOUND.to_json()


def test_the_sharper_estimate_of_the_drop_decides() -> None:
    assert _FOUND.estimate is None and _FOUND.to_json()["estimator"] is None
    counted = replace(_FOUND, counts=Paired(200, 4, 2), drop_ci95=Interval(-2, 4))
    assert counted.estimate == DropEstimate(1.0, Interval(-2, 4), "count")
    sharp = DropEstimate(0.8, Interval(0.2, 1.4), "calibrated")
    calibrated = replace(counted, calibrated=sharp)
    assert calibrated.estimate == sharp
    found = calibrated.to_json()
    assert (found["drop"], found["drop_calibrated"], found["estimator"]) == (1, 0.8, "calibrated")
