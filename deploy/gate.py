"""Decides whether a deployment may ship: pass, fail, or not enough pictures to say.

A limit on a figure with a 95 % interval [low, high] of what it would be on all pictures:

    max-drop        pass: high <= limit     fail: low > limit      else inconclusive
    min-top1,
    min-agreement   pass: low >= limit      fail: high < limit     else inconclusive

so a gate fails on evidence and never on noise, and an inconclusive one names the number of
pictures that would decide it. What needs no statistics is exact: NaN or infinite logits fail, and
the signal-to-noise ratio of the logits has a floor that only a broken graph or kernel misses.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from resdeploy.deploy.accuracy import Accuracy, Truthful
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.specs import Precision
from resdeploy.deploy.statistics import (
    Interval,
    pictures_to_decide_drop,
    pictures_to_decide_share,
)

Verdict = Literal["pass", "inconclusive", "fail"]
_ORDER: tuple[Verdict, ...] = ("pass", "inconclusive", "fail")

# Points of top-1 a deployment may lose where nobody said: what MLPerf allows (99 % of float).
DEFAULT_MAX_DROP = 1.0

# Float32 through TF32 tensor cores keeps about 55 dB, FP16 40 to 60. Sound INT8 gives 17 to 30 on
# photographs, but 8 to 13 on export's built-in pictures, which lie outside its calibrated ranges.
MIN_SQNR_DB: dict[Precision, float] = {"fp32": 45.0, "fp16": 25.0, "int8": 5.0}


@dataclass(frozen=True)
class Limits:
    """Limits in percent or percentage points; None for no limit (max_drop: the default)."""

    max_drop: float | None = None
    min_top1: float | None = None
    min_agreement: float | None = None

    def checked(self, *, labelled: bool) -> "Limits":
        """Return self, or raise InputError for limits that cannot be meant or cannot be judged."""
        for name, value in asdict(self).items():
            option = f"--{name.replace('_', '-')}"
            if value is not None and not 0 <= value <= 100:
                raise InputError(f"{option} {value:g}: not a percentage from 0 to 100")
        if labelled:
            return self
        for name in ("max_drop", "min_top1"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"--{name.replace('_', '-')} needs the true classes: give --data with class "
                    "folders or a list of path,label, or use --min-agreement"
                )
        return self


@dataclass(frozen=True)
class Gate:
    """One decision: `value` (and its interval) against `limit`, as numbers and as a sentence.

    `pictures_needed` is set only where the verdict is inconclusive and some number would decide.
    """

    name: str
    variant: str
    verdict: Verdict
    sentence: str
    value: float | None = None
    interval: Interval | None = None
    limit: float | None = None
    pictures_needed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; the interval as [low, high]."""
        fields = {**vars(self), "interval": None}
        if self.interval is not None:
            fields["interval"] = [round(self.interval.low, 4), round(self.interval.high, 4)]
        return {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in fields.items()
        }


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several gates together: one failure fails all."""
    return max(verdicts, key=_ORDER.index, default="pass")


def gates(
    name: str, accuracy: Accuracy, limits: Limits, *, pictures: tuple[str, ...]
) -> list[Gate]:
    """The gates of one variant, those first that make the others pointless.

    Args:
        pictures: what to call each picture in a message, in the order of the evaluation.
    """
    if accuracy.not_finite:
        return [_not_finite(name, accuracy, pictures)]
    found = []
    if accuracy.counts is not None:
        found.append(drop_gate(name, accuracy, limits.max_drop))
    if accuracy.truthful is not None and limits.min_top1 is not None:
        found.append(_top1_gate(name, accuracy, accuracy.truthful, limits.min_top1))
    if accuracy.agreement is not None and limits.min_agreement is not None:
        found.append(agreement_gate(name, accuracy, limits.min_agreement))
    return found


def drop_gate(name: str, accuracy: Accuracy, max_drop: float | None) -> Gate:
    """The drop of top-1 against the reference on the same pictures."""
    counts, interval = accuracy.counts, accuracy.drop_ci95
    if counts is None or interval is None:
        raise ValueError(f"{name}: no true classes, so no drop")
    limit = DEFAULT_MAX_DROP if max_drop is None else max_drop
    verdict: Verdict = "fail"
    if interval.low <= limit:
        verdict = "pass" if interval.high <= limit else "inconclusive"
    needed = None
    if verdict == "inconclusive":
        needed = pictures_to_decide_drop(counts, limit, reach=accuracy.reach)
    sentence = (
        f"top-1 drops by {counts.drop:.2f} points {_span(interval)} on {counts.images} pictures "
        f"({counts.lost} lost, {counts.gained} gained), allowed are {limit:g}"
    )
    return Gate(
        name="max-drop",
        variant=name,
        verdict=verdict,
        sentence=sentence + _outlook(verdict, needed),
        value=counts.drop,
        interval=interval,
        limit=limit,
        pictures_needed=needed,
    )


def _top1_gate(name: str, accuracy: Accuracy, truthful: Truthful, limit: float) -> Gate:
    value, interval = truthful.top1, truthful.top1_ci95
    gate = _share_gate("min-top1", "top-1 is", name, value, interval, accuracy.images, limit)
    reference = accuracy.reference
    if gate.verdict == "pass" or reference is None or reference.top1 >= limit:
        return gate
    # asked of the deployment, but the network itself does not reach it
    remark = f"; the reference itself reaches {reference.top1:.2f} %"
    return Gate(**{**vars(gate), "sentence": gate.sentence + remark})


def agreement_gate(name: str, accuracy: Accuracy, limit: float) -> Gate:
    """The share of pictures with the reference's top-1 class."""
    value, interval = accuracy.agreement, accuracy.agreement_ci95
    if value is None or interval is None:
        raise ValueError(f"{name}: no reference, so no agreement")
    return _share_gate(
        "min-agreement", "same top-1 class on", name, value, interval, accuracy.images, limit
    )


def _share_gate(
    gate: str, what: str, name: str, value: float, interval: Interval, images: int, limit: float
) -> Gate:
    verdict: Verdict = "fail"
    if interval.high >= limit:
        verdict = "pass" if interval.low >= limit else "inconclusive"
    needed = None
    if verdict == "inconclusive":
        needed = pictures_to_decide_share(value, images, limit)
    sentence = f"{what} {value:.2f} % {_span(interval)} of {images} pictures, at least {limit:g} %"
    return Gate(
        name=gate,
        variant=name,
        verdict=verdict,
        sentence=sentence + " is asked" + _outlook(verdict, needed),
        value=value,
        interval=interval,
        limit=limit,
        pictures_needed=needed,
    )


def logits_gate(name: str, precision: Precision, accuracy: Accuracy, *, inputs: str) -> Gate:
    """The logits against the reference's: their signal-to-noise ratio has a floor.

    Args:
        inputs: what was looked at, e.g. "recorded inputs".
    """
    if accuracy.not_finite:
        return _not_finite(name, accuracy, tuple(f"number {i}" for i in range(accuracy.images)))
    if accuracy.numbers is None:
        raise ValueError(f"{name}: no logits to compare with")
    value, limit = accuracy.numbers.sqnr_db, MIN_SQNR_DB[precision]
    verdict: Verdict = "pass" if value >= limit else "fail"
    sentence = (
        f"logits are {value:.1f} dB from PyTorch's on {accuracy.images} {inputs} "
        f"(max |Δ| {accuracy.numbers.max_abs:.2g}), at least {limit:g} dB is sound for {precision}"
    )
    if verdict == "fail" and precision == "fp32":
        sentence += ": the graph, its kernels, or the recorded answers are another network's"
    return Gate("logits", name, verdict, sentence, value=value, limit=limit)


def nothing_gate(name: str) -> Gate:
    """Neither a reference nor a limit on accuracy: nothing can be said."""
    sentence = "nothing to judge by: give --checkpoint, or --data with classes and --min-top1"
    return Gate("reference", name, "inconclusive", sentence)


def _not_finite(name: str, accuracy: Accuracy, pictures: tuple[str, ...]) -> Gate:
    count, first = len(accuracy.not_finite), pictures[accuracy.not_finite[0]]
    sentence = (
        f"NaN or infinite logits for {count} of {accuracy.images} pictures, the first is {first}"
    )
    return Gate("finite", name, "fail", sentence, value=float(count), limit=0.0)


def _span(interval: Interval) -> str:
    return f"(95 % interval {interval.low:.2f} to {interval.high:.2f})"


def _outlook(verdict: Verdict, needed: int | None) -> str:
    if verdict != "inconclusive":
        return ""
    if needed is None:
        return ": too close to the limit for any number of pictures to decide"
    return f": too few pictures to decide, about {needed:,} would"
