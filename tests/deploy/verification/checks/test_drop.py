"""The drop of all images and of classes: figure, interval and limit give verdict and sentence."""

from dataclasses import replace

import pytest

from resdeploy.deploy.metrics.calibrated_drop import DropEstimate
from resdeploy.deploy.metrics.intervals import Interval, Paired
from resdeploy.deploy.verification.accuracy import Accuracy, ClassDrop
from resdeploy.deploy.verification.checks.drop import class_drop_gate, drop_gate
from tests.deploy.verification.checks.figures import ACCURACY


def _accuracy(low: float, high: float) -> Accuracy:
    return replace(ACCURACY, drop_ci95=Interval(low, high))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.8, 1.0, "pass"), (-0.5, 1.6, "inconclusive"), (1.01, 3.0, "fail")],
)
def test_the_drop_fails_on_evidence_only(low: float, high: float, verdict: str) -> None:
    gate = drop_gate("int8", _accuracy(low, high), 1.0, against="fp32.onnx")
    assert gate.verdict == verdict and gate.limit == 1
    assert gate.value == pytest.approx(100 * 2 / 367)
    assert gate.sentence.startswith(
        f"top-1 drop is 0.54 points (95 % interval {low:.2f} to {high:.2f}) on 367 images "
        "(3 lost, 1 gained), limit: 1"
    )
    assert gate.brief == "int8 lost 0.54 points against fp32.onnx (limit 1)"
    assert (gate.images_needed is not None) == (verdict == "inconclusive")
    if gate.images_needed is not None:
        assert gate.images_needed > 367
        assert (
            f"; too few images to decide: use about {gate.images_needed:,} images" in gate.sentence
        )


def test_a_drop_that_is_the_limit_cannot_be_decided() -> None:
    gate = drop_gate("int8", _accuracy(0.0, 1.1), 100 * 2 / 367, against="fp32.onnx")
    assert gate.images_needed is None
    assert gate.sentence.endswith("; too close to the limit: no number of images can decide")


def test_the_sharper_estimate_decides_and_the_count_is_told() -> None:
    sharp = DropEstimate(0.2, Interval(-0.1, 0.5), "calibrated")
    gate = drop_gate("int8", replace(ACCURACY, calibrated=sharp), 1.0, against="fp32.onnx")
    assert gate.verdict == "pass" and gate.value == 0.2
    assert gate.sentence == (
        "top-1 drop is 0.20 points (95 % interval -0.10 to 0.50) by the logits of 367 images "
        "(counted: 0.54, 3 lost, 1 gained), limit: 1"
    )
    undecided = replace(sharp, interval=Interval(-0.7, 1.1))
    gate = drop_gate("int8", replace(ACCURACY, calibrated=undecided), 1.0, against="fp32.onnx")
    # half an interval of 0.9 must shrink to the distance of 0.8
    assert gate.images_needed == pytest.approx(367 * (0.9 / 0.8) ** 2, abs=1)


def test_what_no_image_narrows_is_left_to_the_count() -> None:
    wide = DropEstimate(0.2, Interval(-0.7, 1.1), "calibrated", floor=0.7)
    gate = drop_gate("int8", replace(ACCURACY, calibrated=wide), 1.0, against="fp32.onnx")
    # 0.9² − 0.7² must shrink to 0.8² − 0.7²
    assert gate.images_needed == pytest.approx(367 * 0.32 / 0.15, abs=1)
    counted = drop_gate("int8", ACCURACY, 1.0, against="fp32.onnx")
    never = replace(ACCURACY, calibrated=replace(wide, floor=0.85))
    gate = drop_gate("int8", never, 1.0, against="fp32.onnx")
    assert gate.images_needed == counted.images_needed


def test_a_contradiction_leaves_the_count_and_an_interval_that_holds_both() -> None:
    wrong = DropEstimate(9.0, Interval(8.9, 9.1), "calibrated")
    gate = drop_gate("int8", replace(ACCURACY, calibrated=wrong), 1.0, against="fp32.onnx")
    assert gate.value == pytest.approx(100 * 2 / 367)
    assert gate.interval == Interval(-0.5, 9.1) and gate.verdict == "inconclusive"
    assert "the logits say 9.00 points, which the count contradicts" in gate.sentence
    # a hundred points apart from every limit, both say the same
    assert drop_gate("int8", replace(ACCURACY, calibrated=wrong), 10, against="").verdict == "pass"


def _class(index: int, lost: int, gained: int = 0, images: int = 75) -> ClassDrop:
    counts = Paired(images, lost, gained)
    return ClassDrop(index, images, lost, gained, 90, 90 - counts.drop, counts.drop, 1.0)


def test_a_class_that_lost_beyond_doubt_fails_and_is_named() -> None:
    hurt = replace(ACCURACY, classes=(_class(1, 23, 2), _class(0, 3), _class(2, 0)))
    gate = class_drop_gate("int8", hurt, ("a", "b", "c"), None, against="fp32.onnx")
    assert gate is not None and (gate.verdict, gate.limit) == ("fail", 10)
    assert gate.brief == "int8 lost 28.0 points of class 'b' against fp32.onnx (limit 10)"
    assert gate.interval is not None and gate.interval.low > 10


def test_one_of_many_classes_is_no_evidence() -> None:
    unlucky = (_class(0, 3, images=10), *(_class(k, 0, images=10) for k in range(1, 100)))
    labels = tuple(map(str, range(100)))
    gate = class_drop_gate(
        "int8", replace(ACCURACY, classes=unlucky), labels, None, against="fp32.onnx"
    )
    assert gate is not None and gate.verdict == "pass" and gate.value == 30
    assert class_drop_gate("int8", ACCURACY, labels, None, against="fp32.onnx") is None
