"""What a check says about a deployment: pass, fail, not enough images to say, or not checked.

A limit on a figure with a 95 % interval [low, high] of what it would be on all images:

    max-drop        pass: high <= limit     fail: low > limit      else inconclusive
    min-top1,
    min-agreement   pass: low >= limit      fail: high < limit     else inconclusive

So a check fails on evidence and never on noise. An inconclusive one says how many images to use.
Guards (max-class-drop, calibration, as-promised) fail beyond doubt and pass otherwise: what they
watch for is large, and no number of images proves that every class is well. What needs no
statistics is exact: NaN or infinite logits fail.

With several checks, chance would break a limit sooner or later; `correction` sees to that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from resdeploy.deploy.metrics.intervals import Interval

Verdict = Literal["pass", "inconclusive", "fail"]
Outcome = Literal["pass", "not checked", "inconclusive", "fail"]
_ORDER: tuple[Outcome, ...] = ("pass", "not checked", "inconclusive", "fail")

EVERY_VARIANT = "all"


@dataclass(frozen=True)
class Gate:
    """One check: `value` (and its interval) against `limit`, as numbers and as a sentence.

    Attributes:
        brief: the same in a few words, for the closing line.
        images: that the figure was measured on; None where more of them would not help.
        images_needed: set where the verdict is inconclusive and some number of images decides.
        p: of "the figure is within the limit", one-sided; None for what is no test.
        guard: passes unless it fails beyond doubt.
        strict: failed by --strict alone, for want of evidence.
    """

    name: str
    variant: str
    verdict: Outcome
    sentence: str
    value: float | None = None
    interval: Interval | None = None
    limit: float | None = None
    brief: str = ""
    images: int | None = None
    images_needed: int | None = None
    p: float | None = None
    guard: bool = False
    strict: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values; the interval as [low, high]."""
        interval = None
        if self.interval is not None:
            interval = [round(self.interval.low, 4), round(self.interval.high, 4)]
        return {
            "name": self.name,
            "variant": self.variant,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "value": None if self.value is None else round(self.value, 4),
            "interval": interval,
            "limit": self.limit,
            "images_needed": self.images_needed,
        }


def worst(verdicts: Iterable[Outcome]) -> Verdict:
    """The verdict of several checks together: one failure fails all; not checked is no verdict."""
    found: Outcome = max(verdicts, key=_ORDER.index, default="pass")
    return "pass" if found == "not checked" else found


def not_checked(name: str, variant: str, why: str) -> Gate:
    """A check that could not run."""
    sentence = f"not checked: {why}"
    return Gate(name, variant, "not checked", sentence, brief=f"{name} {sentence}")


def strictly(gates: Sequence[Gate]) -> list[Gate]:
    """What --strict makes of checks: one that is undecided or did not run has failed."""
    return [
        replace(
            gate,
            verdict="fail",
            sentence=f"{gate.sentence} (a failure with --strict)",
            brief=_strict_brief(gate),
            strict=True,
        )
        if gate.verdict in ("inconclusive", "not checked")
        else gate
        for gate in gates
    ]


def _strict_brief(gate: Gate) -> str:
    """What the closing line says: nobody shall take what is undecided for a broken limit."""
    doubt = "" if gate.verdict == "not checked" else " is undecided"
    return f"{gate.brief}{doubt}, a failure with --strict{decide_by(gate)}"


def decide_by(gate: Gate) -> str:
    """The advice behind an undecided check in few words; empty where no number of images helps."""
    needed = gate.images_needed
    return "" if needed is None else f"; use about {needed:,} images to decide"


def points(value: float, sign: str = "") -> str:
    """Two digits, without a minus before 0.00; `sign` "+" shows that of gains too."""
    return f"{round(value, 2) + 0.0:{sign}.2f}"


def span(interval: Interval, unit: str = "") -> str:
    """An interval in a sentence."""
    return f"(95 % interval {points(interval.low)} to {points(interval.high)}{unit})"


def outlook(verdict: Outcome, needed: int | None) -> str:
    """What to add to the sentence of a check that is undecided."""
    if verdict != "inconclusive":
        return ""
    if needed is None:
        return "; too close to the limit: no number of images can decide"
    return f"; too few images to decide: use about {needed:,} images"
