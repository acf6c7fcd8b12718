"""Which checks a comparison has, and what they are called."""

from dataclasses import replace

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.verification.accuracy import ClassDrop
from resdeploy.deploy.verification.checks.comparison import comparison_gates, earlier_gates
from resdeploy.deploy.verification.checks.limits import Limits
from tests.deploy.verification.checks.figures import ACCURACY

_WHOLE = replace(
    ACCURACY,
    classes=(ClassDrop(0, 75, 1, 0, 90.0, 88.7, 1.3, 1.0),),
    ece_rise=0.1,
    ece_rise_ci95=Interval(-1, 1),
)


def test_each_check_is_there_where_its_inputs_are() -> None:
    found = comparison_gates("int8", _WHOLE, Limits(min_agreement=90), ("a",), against="fp32.onnx")
    assert [g.name for g in found] == ["max-drop", "max-class-drop", "calibration", "min-agreement"]
    unlabelled = replace(_WHOLE, counts=None)
    assert comparison_gates("int8", unlabelled, Limits(), ("a",), against="fp32.onnx") == []


def test_checks_against_earlier_answers_say_so() -> None:
    found = earlier_gates(
        "int8", _WHOLE, Limits(min_agreement=90), ("a",), against="base.json", kind="baseline"
    )
    assert [g.name for g in found] == [
        "baseline", "baseline-max-class-drop", "baseline-calibration",
    ]  # fmt: skip
    assert all(gate.sentence.startswith("against base.json: ") for gate in found)
    assert found[0].brief == "int8 lost 0.54 points against base.json (limit 1)"
