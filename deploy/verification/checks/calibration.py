"""Check of the confidences: thresholds on them, downstream, depend on how calibrated they are."""

from resdeploy.deploy.defaults import MAX_CALIBRATION_RISE
from resdeploy.deploy.metrics.paired_score import beyond_p
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.gate import Gate, Outcome, points, span


def calibration_gate(
    variant: str, accuracy: Accuracy, *, against: str, name: str = "calibration"
) -> Gate | None:
    """The expected calibration error may not rise by more than the limit beyond doubt.

    None where confidences or true classes are not known.
    """
    rise, interval, truthful = accuracy.ece_rise, accuracy.ece_rise_ci95, accuracy.truthful
    if rise is None or interval is None or truthful is None:
        return None
    limit = MAX_CALIBRATION_RISE
    verdict: Outcome = "fail" if interval.low > limit else "pass"
    sentence = (
        f"the calibration error is {truthful.ece:.2f} %, {points(rise, '+')} points "
        f"{span(interval)} from the reference's on {accuracy.images} images, limit: {limit:g}"
    )
    return Gate(
        name=name,
        variant=variant,
        verdict=verdict,
        sentence=sentence,
        value=rise,
        interval=interval,
        limit=limit,
        brief=(
            f"{variant}'s calibration error rose by {rise:.2f} points against {against} "
            f"(limit {limit:g})"
        ),
        p=beyond_p(rise, interval, limit),
        guard=True,
    )
