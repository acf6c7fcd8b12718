"""What `verify` found out, as frozen dataclasses and as the JSON that `--json` prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.accuracy import Accuracy
from resdeploy.deploy.baseline import BaselineComparison
from resdeploy.deploy.evaluation import Evaluation
from resdeploy.deploy.explain import Explanation
from resdeploy.deploy.gate import Gate, Verdict
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.specs import Backend, Precision, Variant
from resdeploy.deploy.statistics import Interval

# The columns of `row`; those after the third are numbers.
ROW_TITLES = (
    "variant",
    "backend",
    "verdict",
    "images",
    "top-1 %",
    "drop (95 % interval)",
    "agreement %",
    "SQNR dB",
    "max |Δ|",
)

_RECORDED_KEYS = ("images", "agreement", "sqnr_db", "max_abs", "cosine", "kl", "not_finite")


@dataclass(frozen=True)
class VariantReport:
    """One variant on one backend: figures on the pictures, and against PyTorch's recorded answers.

    `on_pictures` is None when there were no pictures, `recorded` when there is no reference.npz;
    one of them is there.
    """

    name: str
    precision: Precision
    variant: Variant
    backend: Backend
    on_pictures: Accuracy | None
    recorded: Accuracy | None
    verdict: Verdict

    @property
    def accuracy(self) -> Accuracy:
        """The figures to show first."""
        found = self.on_pictures or self.recorded
        if found is None:
            raise ValueError(f"{self.name}: neither pictures nor recorded answers")
        return found

    def to_json(self) -> dict[str, Any]:
        """The figures, with those against reference.npz under `recorded`."""
        recorded = None
        if self.recorded is not None:
            whole = self.recorded.to_json()
            recorded = {key: whole[key] for key in _RECORDED_KEYS}
        return {
            "verdict": self.verdict,
            "precision": self.precision,
            "variant": self.variant,
            "backend": self.backend,
            **self.accuracy.to_json(),
            "recorded": recorded,
        }


@dataclass(frozen=True)
class VerifyReport:
    """The result of `verify`.

    Attributes:
        reference: what the variants were compared with, as a sentence.
        explanation: with `explain`, where the numbers part.
        evaluation: the answers picture by picture; None when only reference.npz was replayed.
        notes: what a reader should know besides, as sentences.
    """

    bundle: Path
    manifest: Manifest
    verdict: Verdict
    strict: bool
    reference: str
    variants: tuple[VariantReport, ...]
    gates: tuple[Gate, ...]
    evaluation: Evaluation | None
    baseline: BaselineComparison | None
    explanation: Explanation | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `resdeploy verify --json` prints."""
        model = self.manifest.model
        return {
            "verdict": self.verdict,
            "strict": self.strict,
            "bundle": str(self.bundle),
            "architecture": model.architecture,
            "checkpoint_sha256": model.checkpoint_sha256,
            "reference": self.reference,
            "pictures": None if self.evaluation is None else _pictures(self.evaluation),
            "variants": {variant.name: variant.to_json() for variant in self.variants},
            "baseline": None if self.baseline is None else self.baseline.to_json(),
            "explanation": None if self.explanation is None else self.explanation.to_json(),
            "gates": [gate.to_json() for gate in self.gates],
            "notes": list(self.notes),
        }


def figures(variant: VariantReport) -> str:
    """One line with everything measured on a variant."""
    cells = zip(ROW_TITLES, row(variant), strict=True)
    return ", ".join(f"{title} {cell}" for title, cell in cells if cell)


def row(variant: VariantReport) -> tuple[str, ...]:
    """One row of the table, for the terminal, markdown and HTML alike; unknown cells are empty."""
    accuracy = variant.accuracy
    truthful, counts, numbers = accuracy.truthful, accuracy.counts, accuracy.numbers
    drop = ""
    if counts is not None:
        drop = f"{counts.drop:+.2f}{_span(accuracy.drop_ci95)}"
    return (
        variant.name,
        variant.backend,
        variant.verdict,
        str(accuracy.images),
        "" if truthful is None else f"{truthful.top1:.2f}",
        drop,
        "" if accuracy.agreement is None else f"{accuracy.agreement:.2f}",
        "" if numbers is None else f"{numbers.sqnr_db:.1f}",
        "" if numbers is None else f"{numbers.max_abs:.2g}",
    )


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f" ({interval.low:+.2f} … {interval.high:+.2f})"


def _pictures(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "images": len(evaluation.paths),
        "labelled": evaluation.truth is not None,
        "unreadable": [{"path": str(p), "error": why} for p, why in evaluation.unreadable],
        "seconds": {name: round(s, 3) for name, s in evaluation.seconds.items()},
    }
