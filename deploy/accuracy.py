"""Turns the answers of one variant into the figures a person and a gate decide by."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from resdeploy.deploy.compare import (
    Answers,
    Bools,
    Differences,
    Indices,
    calibration_error,
    decibels,
)
from resdeploy.deploy.evaluation import Evaluation
from resdeploy.deploy.statistics import (
    Interval,
    Paired,
    agreement_interval,
    drop_interval,
    holm,
    mcnemar_p,
    paired,
    reach,
    wilson_interval,
)

FlipKind = Literal["lost", "gained", "changed"]


@dataclass(frozen=True)
class Flip:
    """A picture the variant answers differently; confidences are softmax probabilities.

    `kind` is "lost" (only the reference is right), "gained" (only the variant is), or "changed"
    (neither is, or the true class is not known). `position` counts among the readable pictures.
    """

    position: int
    kind: FlipKind
    truth: int | None
    expected: int
    expected_confidence: float
    got: int
    got_confidence: float


@dataclass(frozen=True)
class ClassDrop:
    """One class: pictures, accuracies and drop in points, McNemar's p after Holm's correction."""

    index: int
    images: int
    top1_reference: float
    top1: float
    drop: float
    p_holm: float


@dataclass(frozen=True)
class Truthful:
    """How often a session is right, in percent; `ece` is the expected calibration error."""

    top1: float
    top1_ci95: Interval
    top5: float
    ece: float


@dataclass(frozen=True)
class Numbers:
    """How far the logits are from the reference's (formulas in `deploy.compare`)."""

    max_abs: float
    sqnr_db: float
    cosine: float
    kl: float


@dataclass(frozen=True)
class Accuracy:
    """One variant on one set of pictures; see `measure`.

    Attributes:
        not_finite: positions of pictures answered with NaN or infinity.
        truthful: None where the true classes are not known.
        reference: the same of the reference; None without true classes or without a reference.
        counts, drop_ci95, mcnemar_p, classes: the paired comparison; None likewise.
        agreement, agreement_ci95, numbers: None without a reference.
        reach: how far the largest error reaches into the smallest margin (`deploy.statistics`).
    """

    images: int
    not_finite: tuple[int, ...]
    truthful: Truthful | None
    reference: Truthful | None = None
    counts: Paired | None = None
    drop_ci95: Interval | None = None
    mcnemar_p: float | None = None
    classes: tuple[ClassDrop, ...] = ()
    agreement: float | None = None
    agreement_ci95: Interval | None = None
    flips: tuple[Flip, ...] = ()
    numbers: Numbers | None = None
    reach: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain values; accuracies and drops in percentage points, unknown ones None."""
        kinds = [flip.kind for flip in self.flips]
        truthful, reference = self.truthful, self.reference
        return {
            "images": self.images,
            "top1": truthful and _points(truthful.top1),
            "top1_ci95": truthful and _pair(truthful.top1_ci95),
            "top5": truthful and _points(truthful.top5),
            "top1_reference": reference and _points(reference.top1),
            "top5_reference": reference and _points(reference.top5),
            "drop": None if self.counts is None else _points(self.counts.drop),
            "drop_ci95": _pair(self.drop_ci95),
            "mcnemar_p": _digits(self.mcnemar_p),
            "agreement": _points(self.agreement),
            "agreement_ci95": _pair(self.agreement_ci95),
            "flips": {kind: kinds.count(kind) for kind in ("lost", "gained", "changed")},
            "sqnr_db": self.numbers and _points(self.numbers.sqnr_db),
            "max_abs": self.numbers and _digits(self.numbers.max_abs),
            "cosine": self.numbers and _digits(self.numbers.cosine, 9),
            "kl": self.numbers and _digits(self.numbers.kl),
            "ece": truthful and _points(truthful.ece),
            "ece_reference": reference and _points(reference.ece),
            "not_finite": len(self.not_finite),
            "classes": [
                {key: _digits(value, 6) for key, value in asdict(drop).items()}
                for drop in self.classes
            ],
        }


def measure(evaluation: Evaluation, name: str, *, seed: int = 0) -> Accuracy:
    """All figures of the session called `name`; `seed` is the bootstrap's."""
    found = evaluation.answers[name]
    truth = evaluation.truth
    right = None if truth is None else (found.index == truth) & found.finite
    truthful = None if right is None else _truthful(found, right)
    not_finite = tuple(int(i) for i in np.flatnonzero(~found.finite))
    if evaluation.reference is None:
        return Accuracy(len(found.index), not_finite, truthful)
    expected = evaluation.answers[evaluation.reference]
    apart = evaluation.differences.get(name)  # a baseline knows classes, not logits
    reached = 1.0 if apart is None else reach(expected, apart)
    same = (expected.index == found.index) & found.finite
    counts = expected_right = None
    if truth is not None and right is not None:
        expected_right = (expected.index == truth) & expected.finite
        counts = paired(expected_right, right)
    return Accuracy(
        images=len(found.index),
        not_finite=not_finite,
        truthful=truthful,
        reference=None if expected_right is None else _truthful(expected, expected_right),
        counts=counts,
        drop_ci95=None if counts is None else drop_interval(counts, reach=reached, seed=seed),
        mcnemar_p=None if counts is None else mcnemar_p(counts.lost, counts.gained),
        classes=_class_drops(truth, expected_right, right),
        agreement=100 * float(same.mean()),
        agreement_ci95=agreement_interval(int(same.sum()), len(same), reach=reached),
        flips=_flips(expected, found, truth, same),
        numbers=None if apart is None else _numbers(apart),
        reach=reached,
    )


def _truthful(found: Answers, right: Bools) -> Truthful:
    confidence = np.nan_to_num(found.confidence)
    return Truthful(
        top1=100 * float(right.mean()),
        top1_ci95=wilson_interval(int(right.sum()), len(right)),
        top5=100 * float(found.top5.mean()),
        ece=calibration_error(confidence, right),
    )


def _numbers(apart: Differences) -> Numbers | None:
    """None where a logit is not finite: no number describes that."""
    if not np.isfinite(apart.noise).all():
        return None
    return Numbers(
        max_abs=float(apart.max_abs.max()),
        sqnr_db=decibels(float(apart.signal.sum()), float(apart.noise.sum())),
        cosine=float(apart.cosine.mean()),
        kl=float(apart.kl.mean()),
    )


def _class_drops(
    truth: Indices | None, expected_right: Bools | None, right: Bools | None
) -> tuple[ClassDrop, ...]:
    """Every class that has pictures, those that lost most first."""
    if truth is None or expected_right is None or right is None:
        return ()
    classes = np.unique(truth)
    counts = [paired(expected_right[truth == c], right[truth == c]) for c in classes]
    adjusted = holm([mcnemar_p(count.lost, count.gained) for count in counts])
    drops = [
        ClassDrop(
            index=int(c),
            images=count.images,
            top1_reference=100 * float(expected_right[truth == c].mean()),
            top1=100 * float(right[truth == c].mean()),
            drop=count.drop,
            p_holm=p,
        )
        for c, count, p in zip(classes, counts, adjusted, strict=True)
    ]
    return tuple(sorted(drops, key=lambda drop: -drop.drop))


def _flips(
    expected: Answers, found: Answers, truth: Indices | None, same: Bools
) -> tuple[Flip, ...]:
    flips = []
    for position in map(int, np.flatnonzero(~same)):
        true = None if truth is None else int(truth[position])
        was, now = int(expected.index[position]), int(found.index[position])
        kind: FlipKind = "lost" if was == true else "gained" if now == true else "changed"
        confidences = float(expected.confidence[position]), float(found.confidence[position])
        flips.append(Flip(position, kind, true, was, confidences[0], now, confidences[1]))
    return tuple(flips)


def _points(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _digits(value: float | None, digits: int = 4) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.{digits}g}")


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(interval.low, 4), round(interval.high, 4)]
