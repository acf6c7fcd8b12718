"""The figures of one variant that people and checks decide by; `measure` makes them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from resdeploy.deploy.metrics.calibrated_drop import (
    DropEstimate,
    choose_estimate,
)
from resdeploy.deploy.metrics.intervals import (
    Interval,
    Paired,
)

FlipKind = Literal["lost", "gained", "changed"]


@dataclass(frozen=True)
class Flip:
    """An image the variant answers differently; confidences are softmax probabilities.

    `kind` is "lost" (only the reference is right), "gained" (only the variant is right), or
    "changed" (neither is right, or the true class is not known). `position` counts the readable
    images.
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
    """One class: images, accuracies and drop in points, McNemar's p after Holm's correction."""

    index: int
    images: int
    lost: int
    gained: int
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
    """How far the logits are from the reference's (formulas in `deploy.metrics.logits`).

    Feature maps (`deploy.metrics.feature_maps`) have no `kl`.
    """

    max_abs: float
    sqnr_db: float
    sqnr_ci95: Interval
    cosine: float
    kl: float | None


@dataclass(frozen=True)
class Accuracy:
    """One variant on one set of images; see `measure.measure`.

    Attributes:
        not_finite: positions of images answered with NaN or infinity.
        truthful: None where the true classes are not known.
        reference: the same of the reference; None without true classes or without a reference.
        counts, drop_ci95, mcnemar_p, classes: the paired comparison; None likewise.
        calibrated: the drop from the logits (`metrics.calibrated_drop`); None without logits.
        ece_rise, ece_rise_ci95: points by which the calibration error is above the reference's.
        agreement, agreement_ci95, numbers: None without a reference.
        reach: how far the largest error reaches into the smallest margin (`metrics.intervals`).
        features: of a backbone, each map's figures; `numbers` are those of the noisiest.
    """

    images: int
    not_finite: tuple[int, ...]
    truthful: Truthful | None
    reference: Truthful | None = None
    counts: Paired | None = None
    drop_ci95: Interval | None = None
    mcnemar_p: float | None = None
    calibrated: DropEstimate | None = None
    ece_rise: float | None = None
    ece_rise_ci95: Interval | None = None
    classes: tuple[ClassDrop, ...] = ()
    agreement: float | None = None
    agreement_ci95: Interval | None = None
    flips: tuple[Flip, ...] = ()
    numbers: Numbers | None = None
    reach: float = 1.0
    features: Mapping[str, Numbers] = field(default_factory=dict)

    @property
    def estimate(self) -> DropEstimate | None:
        """The drop that a check decides by: the sharpest estimate that can be had."""
        if self.counts is None or self.drop_ci95 is None:
            return None
        return choose_estimate(self.counts, self.drop_ci95, self.calibrated)

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
            **self._calibrated_to_json(),
            "agreement": _points(self.agreement),
            "agreement_ci95": _pair(self.agreement_ci95),
            "flips": {kind: kinds.count(kind) for kind in ("lost", "gained", "changed")},
            "sqnr_db": self.numbers and _points(self.numbers.sqnr_db),
            "sqnr_db_ci95": self.numbers and _pair(self.numbers.sqnr_ci95),
            "max_abs": self.numbers and _digits(self.numbers.max_abs),
            "cosine": self.numbers and _digits(self.numbers.cosine, 9),
            "kl": self.numbers and _digits(self.numbers.kl),
            "ece": truthful and _points(truthful.ece),
            "ece_reference": reference and _points(reference.ece),
            "ece_rise": _points(self.ece_rise),
            "ece_rise_ci95": _pair(self.ece_rise_ci95),
            "not_finite": len(self.not_finite),
            **self._features_to_json(),
            "classes": [
                {key: _digits(value, 6) for key, value in asdict(drop).items()}
                for drop in self.classes
            ],
        }

    def _features_to_json(self) -> dict[str, Any]:
        """Each map's figures, nothing for a classifier."""
        if not self.features:
            return {}
        return {
            "features": {
                name: {
                    "sqnr_db": _points(found.sqnr_db),
                    "sqnr_db_ci95": _pair(found.sqnr_ci95),
                    "cosine": _digits(found.cosine, 9),
                    "max_abs": _digits(found.max_abs),
                }
                for name, found in self.features.items()
            }
        }

    def _calibrated_to_json(self) -> dict[str, Any]:
        """The estimate from the logits beside the count, and which of the two decides."""
        found, decides = self.calibrated, self.estimate
        return {
            "drop_calibrated": found and _points(found.drop),
            "drop_calibrated_ci95": found and _pair(found.interval),
            "estimator": decides and decides.estimator,
        }


def _points(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _digits(value: float | None, digits: int = 4) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.{digits}g}")


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(interval.low, 4), round(interval.high, 4)]
