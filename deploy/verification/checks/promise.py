"""Holds a variant to what was measured when it was made.

Export and quantize measure each variant against PyTorch or fp32 and write the figures into the
manifest and into the ONNX file, under `proofs.promised`:

    {"int8": {"images":   {"of", "count", "sqnr_db", "sqnr_db_ci95", "agreement", …, "top1", …},
              "recorded": {the same on the inputs of reference.npz}}}

A later run that falls short shows a damaged or swapped file, other kernels or another runtime, a
CPU that saturates, or an engine of another graph. On the recorded inputs the figures must be
reached again: SQNR within 1 dB on the CPU, where they were measured, within 3 dB elsewhere, and
agreement not below the promised interval. On other images they must not fall short beyond both
intervals:

    SQNR       p − m > 3 dB beyond doubt, p promised, m measured, their variances added
    agreement  the measured interval lies below the promised one
    top-1      likewise

Float variants are promised at most the floor of their precision (`metrics.logits.MIN_SQNR_DB`):
other hardware computes them with fewer bits, and rightly so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from resdeploy.deploy.defaults import MAX_REPEATED_SHORTFALL_DB, MAX_SQNR_SHORTFALL_DB
from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.metrics.logits import MIN_SQNR_DB
from resdeploy.deploy.metrics.paired_score import beyond_p
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.correction import LEVEL
from resdeploy.deploy.verification.checks.gate import Gate

PROMISED = "promised"
CHECK = "as-promised"
ON_IMAGES = "images"
ON_RECORDED = "recorded"

# what export and quantize measure with
_MEASURED_ON = "ort-cpu"
# beyond this the noise is float32's round-off, which changes with threads and hardware
ROUND_OFF_DB = 60.0

_CAUSES = (
    "the file is damaged or another one, the runtime or the hardware computes it otherwise, or the "
    "images are unlike those"
)


@dataclass(frozen=True)
class Promise:
    """Figures as they were measured on `count` images; accuracies None where not known."""

    of: str
    count: int
    sqnr_db: float
    sqnr_db_ci95: Interval
    agreement: float
    agreement_ci95: Interval
    top1: float | None
    top1_ci95: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded: the last digits change with the number of threads."""
        return {
            key: [_rounded(value.low), _rounded(value.high)]
            if isinstance(value, Interval)
            else _rounded(value)
            if isinstance(value, float)
            else value
            for key, value in vars(self).items()
        }


def promise_of(accuracy: Accuracy, of: str) -> dict[str, Any] | None:
    """What can be promised from measured figures; None where no logits were compared.

    `of` says which images they were, e.g. "42 images held back from calibration".
    """
    numbers, agreement, interval = accuracy.numbers, accuracy.agreement, accuracy.agreement_ci95
    if numbers is None or agreement is None or interval is None:
        return None
    truthful, spread = accuracy.truthful, numbers.sqnr_ci95
    return Promise(
        of=of,
        count=accuracy.images,
        sqnr_db=min(ROUND_OFF_DB, numbers.sqnr_db),
        sqnr_db_ci95=Interval(min(ROUND_OFF_DB, spread.low), min(ROUND_OFF_DB, spread.high)),
        agreement=agreement,
        agreement_ci95=interval,
        top1=None if truthful is None else truthful.top1,
        top1_ci95=None if truthful is None else truthful.top1_ci95,
    ).to_json()


def read_promise(proofs: Mapping[str, Any], variant: str, kind: str) -> Promise | None:
    """What was promised for a variant on images or on the recorded inputs; None for nothing.

    A promise of another form is none: it never decides, so an older reader passes it by.
    """
    try:
        fields = proofs[PROMISED][variant][kind]
        return Promise(
            of=str(fields["of"]),
            count=int(fields["count"]),
            sqnr_db=float(fields["sqnr_db"]),
            sqnr_db_ci95=Interval(*map(float, fields["sqnr_db_ci95"])),
            agreement=float(fields["agreement"]),
            agreement_ci95=Interval(*map(float, fields["agreement_ci95"])),
            top1=None if fields["top1"] is None else float(fields["top1"]),
            top1_ci95=None
            if fields["top1_ci95"] is None
            else Interval(*map(float, fields["top1_ci95"])),
        )
    except (KeyError, TypeError, ValueError):
        return None


def recorded_promise_gate(
    variant: str, precision: Precision, accuracy: Accuracy, promise: Promise, *, backend: Backend
) -> Gate:
    """The recorded inputs again: what was reached on them must be reached."""
    allowed = MAX_REPEATED_SHORTFALL_DB if backend == _MEASURED_ON else MAX_SQNR_SHORTFALL_DB
    least_db = _least_db(precision, promise.sqnr_db - allowed)
    least_agreement = promise.agreement_ci95.low
    numbers, agreement = accuracy.numbers, accuracy.agreement or 0.0
    got_db = -math.inf if numbers is None else numbers.sqnr_db
    short = got_db < least_db
    differs = agreement < least_agreement
    where = f"on the {accuracy.images} recorded inputs"
    sentence = (
        f"SQNR is {got_db:.1f} dB and agreement {agreement:.1f} % {where}, promised "
        f"{promise.sqnr_db:.1f} dB and {promise.agreement:.1f} %, limits: {least_db:.1f} dB and "
        f"{least_agreement:.1f} %"
    )
    brief = (
        f"{variant} has {got_db:.1f} dB {where}, promised {promise.sqnr_db:.1f}"
        if short or not differs
        else f"{variant} agrees on {agreement:.1f} % {where}, promised {promise.agreement:.1f} %"
    )
    if short or differs:
        sentence += "; the file is damaged or another one, or it is computed otherwise here"
    return Gate(
        name=CHECK,
        variant=variant,
        verdict="fail" if short or differs else "pass",
        sentence=sentence,
        value=None if numbers is None else got_db,
        interval=None if numbers is None else numbers.sqnr_ci95,
        limit=round(least_db, 4),
        brief=brief,
        guard=True,
    )


def promise_gate(
    variant: str, precision: Precision, accuracy: Accuracy, promise: Promise
) -> Gate | None:
    """Other images of the same kind: nothing may fall short beyond both intervals.

    The figures are tested together: the smallest p counts as often as there are figures
    (Bonferroni). None where nothing that was promised was measured.
    """
    found = [
        gate
        for gate in (
            _sqnr(variant, precision, accuracy, promise),
            _agreement(variant, accuracy, promise),
            _top1(variant, accuracy, promise),
        )
        if gate is not None
    ]
    if not found:
        return None
    shown = min(found, key=lambda gate: (gate.verdict != "fail", gate.p or 0.0))
    p = min(1.0, len(found) * min(gate.p or 0.0 for gate in found))
    if shown.verdict != "fail":
        return replace(found[0], p=p)
    if p < LEVEL:
        return replace(shown, p=p)
    why = f"; short alone, but not among {len(found)} figures (p = {p:.2g})"
    return replace(shown, verdict="pass", p=p, sentence=shown.sentence + why)


def _sqnr(variant: str, precision: Precision, accuracy: Accuracy, promise: Promise) -> Gate | None:
    if accuracy.numbers is None:
        return None
    got, interval = accuracy.numbers.sqnr_db, accuracy.numbers.sqnr_ci95
    least = _least_db(precision, promise.sqnr_db - MAX_SQNR_SHORTFALL_DB)
    short = least + MAX_SQNR_SHORTFALL_DB - got
    spread = math.hypot(promise.sqnr_db - promise.sqnr_db_ci95.low, interval.high - got)
    p = beyond_p(short, Interval(short - spread, short + spread), MAX_SQNR_SHORTFALL_DB)
    failed = short - spread > MAX_SQNR_SHORTFALL_DB
    sentence = (
        f"SQNR is {got:.1f} dB ({interval.low:.1f} to {interval.high:.1f}) on {accuracy.images} "
        f"images, promised {promise.sqnr_db:.1f} dB on {promise.of}, limit: "
        f"{MAX_SQNR_SHORTFALL_DB:g} dB less"
    )
    return Gate(
        name=CHECK,
        variant=variant,
        verdict="fail" if failed else "pass",
        sentence=f"{sentence}; {_CAUSES}" if failed else sentence,
        value=got,
        interval=interval,
        limit=round(least, 4),
        brief=(
            f"{variant} has {got:.1f} dB, promised {promise.sqnr_db:.1f} "
            f"(limit {MAX_SQNR_SHORTFALL_DB:g} less)"
        ),
        p=p,
        guard=True,
    )


def _agreement(variant: str, accuracy: Accuracy, promise: Promise) -> Gate | None:
    got, interval = accuracy.agreement, accuracy.agreement_ci95
    if got is None or interval is None:
        return None
    return _share(
        variant, "agreement", got, interval, promise.agreement, promise.agreement_ci95, promise.of
    )


def _top1(variant: str, accuracy: Accuracy, promise: Promise) -> Gate | None:
    truthful = accuracy.truthful
    if truthful is None or promise.top1 is None or promise.top1_ci95 is None:
        return None
    return _share(
        variant, "top-1", truthful.top1, truthful.top1_ci95, promise.top1, promise.top1_ci95,
        promise.of,
    )  # fmt: skip


def _share(
    variant: str,
    what: str,
    got: float,
    interval: Interval,
    promised: float,
    promised_interval: Interval,
    of: str,
) -> Gate:
    failed = interval.high < promised_interval.low
    sentence = (
        f"{what} is {got:.1f} % ({interval.low:.1f} to {interval.high:.1f}), promised "
        f"{promised:.1f} % ({promised_interval.low:.1f} to {promised_interval.high:.1f}) on {of}"
    )
    return Gate(
        name=CHECK,
        variant=variant,
        verdict="fail" if failed else "pass",
        sentence=f"{sentence}; {_CAUSES}" if failed else sentence,
        value=got,
        interval=interval,
        limit=promised_interval.low,
        brief=f"{variant} has {got:.1f} % {what}, promised {promised:.1f} %",
        p=beyond_p(-got, Interval(-interval.high, -interval.low), -promised_interval.low),
        guard=True,
    )


def _rounded(value: float) -> float:
    return round(value, 1)


def _least_db(precision: Precision, least: float) -> float:
    """Float variants need no more than the floor of their precision."""
    return least if precision == "int8" else min(least, MIN_SQNR_DB[precision])
