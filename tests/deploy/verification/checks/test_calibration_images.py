"""Images of another kind are told by how confident the network is on them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float64s
from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.metrics.logits import Answers
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.calibration_images import calibration_images_gate
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.evaluation import Evaluation
from tests.fakes import FakeSession


@pytest.fixture
def manifest(flower_bundle: Path) -> Manifest:
    return read_bundle(flower_bundle).manifest


@pytest.fixture
def judged(manifest: Manifest) -> Callable[..., Gate | None]:
    """A function: what quantize recorded, the mean here -> the check, on 367 images."""

    def judge(recorded: object, mean: float = 0.85, variant: Variant = "int8") -> Gate | None:
        calibrated = replace(manifest, calibration={"confidence": recorded})
        random = np.random.default_rng(0)
        confidence = np.clip(mean + random.normal(0, 0.15, 367), 0.2, 1.0)
        evaluation = _evaluation(np.asarray(confidence + mean - confidence.mean()))
        candidate = Candidate(variant, "int8", variant, "ort-cpu", FakeSession())
        return calibration_images_gate(calibrated, candidate, evaluation)

    return judge


def _evaluation(confidence: Float64s) -> Evaluation:
    count = len(confidence)
    index, yes = np.zeros(count, np.int64), np.ones(count, np.bool_)
    found = Answers(index, confidence, yes, confidence, yes)
    return Evaluation((), (), None, {"fp32": found}, {}, "fp32", (), {})


@pytest.mark.parametrize(
    ("there", "count", "verdict"),
    [
        (86.1, 100, "pass"),  # another half of the same images
        (72.1, 100, "fail"),  # small images blown up
        (55.9, 100, "fail"),  # photographs of everything
        (72.1, 16, "pass"),  # too few to be sure
        (99.0, 128, "pass"),  # those that the network was trained on
    ],
)
def test_less_confidence_beyond_doubt_fails(
    judged: Callable[..., Gate | None], there: float, count: int, verdict: str
) -> None:
    gate = judged({"images": count, "mean": there, "deviation": 17.0})
    assert gate is not None and gate.verdict == verdict and gate.guard
    assert gate.value == pytest.approx(85 - there, abs=0.01)
    assert ("another kind" in gate.brief) == (verdict == "fail")
    if verdict == "fail":
        assert "quantize again with --calib on images like these" in gate.sentence
        assert gate.brief.startswith("int8 was calibrated on images of another kind: the network")


@pytest.mark.parametrize("recorded", [None, 3, {}, {"images": 1, "mean": 50.0, "deviation": 0.0}])
def test_what_was_not_recorded_is_not_checked(
    judged: Callable[..., Gate | None], recorded: object
) -> None:
    assert judged(recorded) is None


def test_float_variants_were_calibrated_on_nothing(judged: Callable[..., Gate | None]) -> None:
    assert judged({"images": 100, "mean": 50.0, "deviation": 17.0}, variant="fp32") is None
