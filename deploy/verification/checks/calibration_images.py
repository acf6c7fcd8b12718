"""Check that an INT8 variant was calibrated on images of the kind it is verified on.

Ranges of another data set may be wrong for these images, and figures measured on it promise
nothing about them. No statistic of pixels tells, since natural images resemble each other. The
network does: it is less confident on images of another kind than it was trained for. quantize
records the mean of
the largest softmax probability on calibration images, c with standard error s_c; on the n images of
the verification it is v with s_v. The check fails where v − c exceeds the limit beyond doubt:

    v − c − 1.96 hypot(s_v, s_c) > limit
"""

import math

import numpy as np

from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.defaults import MAX_CONFIDENCE_SHORTFALL
from resdeploy.deploy.metrics.intervals import Z95, Interval
from resdeploy.deploy.metrics.paired_score import beyond_p
from resdeploy.deploy.targets import is_int8
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.gate import Gate, span
from resdeploy.deploy.verification.evaluation import Evaluation

NAME = "calibration-images"


def calibration_images_gate(
    manifest: Manifest, candidate: Candidate, evaluation: Evaluation
) -> Gate | None:
    """None for float variants, without a reference, and where quantize recorded nothing."""
    if not is_int8(candidate.variant) or evaluation.reference is None:
        return None
    try:
        recorded = (manifest.calibration or {})["confidence"]
        count = int(recorded["images"])
        there, deviation = float(recorded["mean"]), float(recorded["deviation"])
    except (KeyError, TypeError, ValueError):
        return None
    percent = 100 * evaluation.answers[evaluation.reference].confidence
    if count < 2 or len(percent) < 2 or not np.isfinite(percent).all():
        return None
    here, spread = float(percent.mean()), float(percent.std(ddof=1))
    error = math.hypot(spread / math.sqrt(len(percent)), deviation / math.sqrt(count))
    return _gate(candidate.name, (there, count), (here, len(percent)), error)


def _gate(variant: str, then: tuple[float, int], now: tuple[float, int], error: float) -> Gate:
    """Means and numbers of images, at calibration and now."""
    there, count = then
    here, images = now
    short, limit = here - there, MAX_CONFIDENCE_SHORTFALL
    interval = Interval(short - Z95 * error, short + Z95 * error)
    failed = interval.low > limit
    sentence = (
        f"the network is {there:.1f} % confident on {count} calibration images, {here:.1f} % "
        f"on these {images}: {short:+.1f} points {span(interval)}, limit: {limit:g}"
    )
    kind = f"was calibrated on images {'of another kind' if failed else 'like these'}"
    advice = "; they are of another kind: quantize again with --calib on images like these"
    return Gate(
        name=NAME,
        variant=variant,
        verdict="fail" if failed else "pass",
        sentence=f"{sentence}{advice}" if failed else sentence,
        value=short,
        interval=interval,
        limit=limit,
        brief=f"{variant} {kind}: the network is {there:.0f} % confident there, {here:.0f} % here",
        p=beyond_p(short, interval, limit),
        guard=True,
    )
