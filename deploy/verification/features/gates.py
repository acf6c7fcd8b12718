"""Checks of feature maps: each as near to the reference's as was measured when it was made.

Export and quantize write under `proofs.promised`, for each variant, on images and on the recorded
inputs:

    {"of", "count", "features": {"C5": {"sqnr_db", "sqnr_db_ci95", "cosine"}, …}}

With p promised and m measured, and d allowed decibels (1 on the recorded inputs on the CPU, 3 on
other backends, 3 and the width of both intervals on other images):

    SQNR      m >= p - d
    cosine    1 - m <= (1 - p) · 10^(d/10): it counts every image alike, the dark ones too

Float variants need no more than the floor of their precision (`metrics.logits.MIN_SQNR_DB`), at
which the cosine is at least √(1 - 10^(-floor/10)); the same holds for what nothing is promised of.
"""

import math
from collections.abc import Mapping
from typing import Any

from resdeploy.deploy.defaults import MAX_REPEATED_SHORTFALL_DB, MAX_SQNR_SHORTFALL_DB
from resdeploy.deploy.metrics.logits import MIN_SQNR_DB
from resdeploy.deploy.specs import Precision
from resdeploy.deploy.verification.accuracy import Accuracy, Numbers
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.checks.promise import ON_IMAGES, ON_RECORDED, PROMISED

CHECK = "features"

_MEASURED_ON = "ort-cpu"
# beyond this the noise is float32's round-off, which changes with threads and hardware
_ROUND_OFF_DB = 60.0
_ROUND_OFF_COSINE = 1e-6


def promised_maps(accuracy: Accuracy, of: str) -> dict[str, Any] | None:
    """What can be promised of a variant; `of` says which images were measured."""
    if not accuracy.features:
        return None
    return {
        "of": of,
        "count": accuracy.images,
        "features": {
            name: {
                "sqnr_db": round(min(_ROUND_OFF_DB, found.sqnr_db), 1),
                "sqnr_db_ci95": [
                    round(min(_ROUND_OFF_DB, end), 1)
                    for end in (found.sqnr_ci95.low, found.sqnr_ci95.high)
                ],
                "cosine": round(found.cosine, 6),
            }
            for name, found in accuracy.features.items()
        },
    }


def recorded_gates(
    candidate: Candidate, accuracy: Accuracy, proofs: Mapping[str, Any]
) -> list[Gate]:
    """The recorded inputs again: what was reached on them must be reached, by every map."""
    on_cpu = candidate.backend == _MEASURED_ON
    allowed_db = MAX_REPEATED_SHORTFALL_DB if on_cpu else MAX_SQNR_SHORTFALL_DB
    where = f"from PyTorch's on {accuracy.images} recorded inputs"
    return [
        _gate(candidate, name, found, _promise(proofs, candidate, ON_RECORDED, name), allowed_db,
              where)
        for name, found in accuracy.features.items()
    ]  # fmt: skip


def image_gates(
    candidate: Candidate, accuracy: Accuracy, proofs: Mapping[str, Any], *, against: str
) -> list[Gate]:
    """Other images: no map may fall short of what was promised, beyond doubt."""
    gates = []
    for name, found in accuracy.features.items():
        promise = _promise(proofs, candidate, ON_IMAGES, name)
        low = found.sqnr_db if promise is None else float(promise["sqnr_db_ci95"][0])
        width = 0.0 if promise is None else float(promise["sqnr_db"]) - low
        spread = math.hypot(width, found.sqnr_ci95.high - found.sqnr_db)
        where = f"from {against}'s on {accuracy.images} images"
        allowed_db = MAX_SQNR_SHORTFALL_DB + spread
        gates.append(_gate(candidate, name, found, promise, allowed_db, where))
    return gates


def _gate(
    candidate: Candidate,
    feature: str,
    found: Numbers,
    promise: Mapping[str, Any] | None,
    allowed_db: float,
    where: str,
) -> Gate:
    least_db, least_cosine = _limits(candidate.precision, promise, allowed_db)
    short = found.sqnr_db < least_db or found.cosine < least_cosine
    sentence = (
        f"{feature} is {found.sqnr_db:.1f} dB and cosine {found.cosine:.6f} {where} "
        f"(max |Δ| {found.max_abs:.2g}), minimum: {least_db:.1f} dB and {least_cosine:.6f}"
    )
    if short:
        sentence += (
            "; the file is damaged or another one, it is computed otherwise here, or the images "
            "are unlike those it was made with"
        )
    return Gate(
        name=CHECK,
        variant=candidate.name,
        verdict="fail" if short else "pass",
        sentence=sentence,
        value=found.sqnr_db,
        interval=found.sqnr_ci95,
        limit=round(least_db, 4),
        brief=f"{candidate.name}'s {feature} is {found.sqnr_db:.1f} dB {where}",
        guard=promise is not None,
    )


def _limits(
    precision: Precision, promise: Mapping[str, Any] | None, allowed_db: float
) -> tuple[float, float]:
    """The least SQNR in dB and the least cosine."""
    floor_db = MIN_SQNR_DB[precision]
    floor_cosine = math.sqrt(1 - 10 ** (-floor_db / 10))
    if promise is None:
        return floor_db, floor_cosine
    least_db = float(promise["sqnr_db"]) - allowed_db
    lost = (1 - float(promise["cosine"])) * 10 ** (allowed_db / 10)
    least_cosine = 1 - lost - _ROUND_OFF_COSINE
    if precision == "int8":
        return least_db, least_cosine
    return min(least_db, floor_db), min(least_cosine, floor_cosine)


def _promise(
    proofs: Mapping[str, Any], candidate: Candidate, kind: str, feature: str
) -> Mapping[str, Any] | None:
    """What was promised of one map; None for nothing."""
    promised = (proofs.get(PROMISED) or {}).get(candidate.variant) or {}
    entry: Mapping[str, Any] | None = ((promised.get(kind) or {}).get("features") or {}).get(
        feature
    )
    return entry
