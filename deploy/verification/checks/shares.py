"""Checks of shares of images that must be reached: top-1 accuracy, agreement with the reference."""

from dataclasses import replace

from resdeploy.deploy.metrics.intervals import Interval, images_to_decide_share
from resdeploy.deploy.metrics.paired_score import beyond_p
from resdeploy.deploy.verification.accuracy import Accuracy, Truthful
from resdeploy.deploy.verification.checks.gate import Gate, Outcome, outlook, span


def top1_gate(variant: str, accuracy: Accuracy, truthful: Truthful, limit: float) -> Gate:
    """The accuracy itself; what the reference has is mentioned where it misses the limit too."""
    gate = _share_gate(
        "min-top1", "top-1 is", variant, truthful.top1, truthful.top1_ci95, accuracy.images, limit
    )
    gate = replace(
        gate, brief=f"{variant} has a top-1 of {truthful.top1:.2f} % (minimum {limit:g})"
    )
    reference = accuracy.reference
    if gate.verdict == "pass" or reference is None or reference.top1 >= limit:
        return gate
    # the limit is for the deployment, but the network itself misses it
    remark = f"; the reference itself has only {reference.top1:.2f} %"
    return replace(gate, sentence=gate.sentence + remark)


def agreement_gate(
    variant: str,
    accuracy: Accuracy,
    limit: float,
    *,
    against: str,
    name: str = "min-agreement",
) -> Gate:
    """The share of images with the reference's top-1 class."""
    value, interval = accuracy.agreement, accuracy.agreement_ci95
    if value is None or interval is None:
        raise ValueError(f"{variant}: no reference, so no agreement")
    gate = _share_gate(name, "agreement is", variant, value, interval, accuracy.images, limit)
    brief = f"{variant} agrees with {against} on {value:.2f} % (minimum {limit:g})"
    return replace(gate, brief=brief)


def _share_gate(
    name: str,
    what: str,
    variant: str,
    value: float,
    interval: Interval,
    images: int,
    limit: float,
) -> Gate:
    verdict: Outcome = "fail"
    if interval.high >= limit:
        verdict = "pass" if interval.low >= limit else "inconclusive"
    needed = images_to_decide_share(value, images, limit) if verdict == "inconclusive" else None
    sentence = f"{what} {value:.2f} % {span(interval)} on {images} images, minimum: {limit:g} %"
    # a minimum for x is a maximum for -x
    mirrored = Interval(-interval.high, -interval.low)
    return Gate(
        name=name,
        variant=variant,
        verdict=verdict,
        sentence=sentence + outlook(verdict, needed),
        value=value,
        interval=interval,
        limit=limit,
        images=images,
        images_needed=needed,
        p=beyond_p(-value, mirrored, -limit),
    )
