"""The calibration error may not rise beyond doubt."""

from dataclasses import replace

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.verification.checks.calibration import calibration_gate
from tests.deploy.verification.checks.figures import ACCURACY


def test_a_rise_beyond_doubt_fails_and_a_doubtful_one_passes() -> None:
    clear = replace(ACCURACY, ece_rise=9.0, ece_rise_ci95=Interval(6.0, 12.0))
    gate = calibration_gate("int8", clear, against="fp32.onnx")
    assert gate is not None and (gate.verdict, gate.limit) == ("fail", 5)
    assert gate.brief == "int8's calibration error rose by 9.00 points against fp32.onnx (limit 5)"
    doubtful = replace(ACCURACY, ece_rise=9.0, ece_rise_ci95=Interval(4.0, 14.0))
    gate = calibration_gate("int8", doubtful, against="fp32.onnx")
    assert gate is not None and gate.verdict == "pass"


def test_without_confidences_there_is_no_check() -> None:
    assert calibration_gate("int8", ACCURACY, against="base.json") is None
