"""What `verify` found, as frozen dataclasses and as the JSON that `--json` prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.specs import Backend, Precision, Variant
from resdeploy.deploy.verification.accuracy import Accuracy, Flip
from resdeploy.deploy.verification.baseline import EarlierComparison
from resdeploy.deploy.verification.checks.gate import Gate, Verdict, points
from resdeploy.deploy.verification.device.address import DeviceFacts
from resdeploy.deploy.verification.evaluation import Evaluation
from resdeploy.deploy.verification.explain import Explanation

# The columns of `row`; those after the third are numbers, but for what they are compared with.
ROW_TITLES = (
    "variant",
    "backend",
    "verdict",
    "images",
    "top-1 %",
    "drop (95 % interval)",
    "counted",
    "against",
    "agreement %",
    "SQNR dB",
    "max |Δ|",
)

REFERENCE_CELL = "reference"

_RECORDED_KEYS = (
    "images", "agreement", "sqnr_db", "sqnr_db_ci95", "max_abs", "cosine", "kl", "not_finite",
)  # fmt: skip
# what a comparison says, taken from the one that the checks decided by
_COMPARED_KEYS = (
    "top1_reference", "drop", "drop_ci95", "mcnemar_p", "drop_calibrated", "drop_calibrated_ci95",
    "estimator",
)  # fmt: skip


@dataclass(frozen=True)
class VariantReport:
    """One variant on one backend: figures on the images, and against PyTorch's recorded logits.

    `on_images` is None without images, `recorded` without a reference.npz; one of them is there.

    Attributes:
        is_reference: it is what the others were compared with, and is compared with nothing.
        reference: the name of what `on_images` was compared with, or None.
        recorded_itself: it gave the logits in reference.npz, so these say only that it still gives
            them.
        compared, compared_with: the comparison that its checks decided by, and with what; a
            baseline or another release where that says more.
    """

    name: str
    precision: Precision
    variant: Variant
    backend: Backend
    on_images: Accuracy | None
    recorded: Accuracy | None
    verdict: Verdict
    is_reference: bool = False
    reference: str | None = None
    compared: Accuracy | None = None
    compared_with: str | None = None
    recorded_itself: bool = False

    @property
    def accuracy(self) -> Accuracy:
        """The figures to show first."""
        found = self.on_images or self.recorded
        if found is None:
            raise ValueError(f"{self.name}: neither images nor recorded logits")
        return found

    @property
    def flips(self) -> tuple[Flip, ...]:
        """The images answered otherwise, in the comparison that the checks decided by."""
        return self.accuracy.flips if self.compared is None else self.compared.flips

    def to_json(self) -> dict[str, Any]:
        """The figures, with those against reference.npz under `recorded`."""
        recorded = None
        if self.recorded is not None:
            whole = self.recorded.to_json()
            recorded = {key: whole[key] for key in (*_RECORDED_KEYS, "features") if key in whole}
        return {
            "verdict": self.verdict,
            "precision": self.precision,
            "variant": self.variant,
            "backend": self.backend,
            **self.accuracy.to_json(),
            **self._compared_to_json(),
            "is_reference": self.is_reference,
            "recorded": recorded,
        }

    def _compared_to_json(self) -> dict[str, Any]:
        """The drop that the checks decided by, and against what."""
        found = {"drop_against": self.compared_with}
        if self.compared is None:
            return found
        whole = self.compared.to_json()
        return {**found, **{key: whole[key] for key in _COMPARED_KEYS}}


@dataclass(frozen=True)
class VerifyReport:
    """The result of `verify`.

    Attributes:
        reason: the closing sentence: the verdict and what decided it.
        reference: what the variants were compared with, as a sentence.
        explanation: what `explain` found.
        evaluation: the answers image by image; None when only reference.npz was replayed.
        notes: what else a reader should know, as sentences.
        when: the date and time of the verification.
        device: the device that ran the variants; None for this machine.
    """

    bundle: Path
    manifest: Manifest
    verdict: Verdict
    reason: str
    strict: bool
    reference: str
    variants: tuple[VariantReport, ...]
    gates: tuple[Gate, ...]
    evaluation: Evaluation | None
    earlier: tuple[EarlierComparison, ...]
    explanation: Explanation | None
    notes: tuple[str, ...]
    when: str = ""
    device: DeviceFacts | None = None

    @property
    def subject(self) -> str:
        """What was verified: the bundle, and the device where that is another machine."""
        return str(self.bundle) + ("" if self.device is None else f" on {self.device.name}")

    @property
    def baseline(self) -> EarlierComparison | None:
        """The comparison with a baseline file, if there was one."""
        return next((since for since in self.earlier if since.kind == "baseline"), None)

    def label(self, index: int) -> str:
        """The name of a class; another release may answer with one that the bundle lacks."""
        return self.manifest.labels[index] if index >= 0 else "another class"

    def to_json(self) -> dict[str, Any]:
        """What `resdeploy verify --json` prints."""
        model = self.manifest.model
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "strict": self.strict,
            "bundle": str(self.bundle),
            "architecture": model.architecture,
            "checkpoint_sha256": model.checkpoint_sha256,
            "reference": self.reference,
            "device": None if self.device is None else vars(self.device),
            "images": None if self.evaluation is None else _images(self.evaluation),
            "variants": {variant.name: self._variant_to_json(variant) for variant in self.variants},
            "baseline": _earlier(self.earlier, "baseline"),
            "against": _earlier(self.earlier, "against"),
            "explanation": None if self.explanation is None else self.explanation.to_json(),
            "gates": [gate.to_json() for gate in self.gates],
            "notes": list(self.notes),
        }

    def _variant_to_json(self, variant: VariantReport) -> dict[str, Any]:
        file = self.manifest.variants.get(variant.variant)
        return {**variant.to_json(), "sha256": None if file is None else file.sha256}


def figures(variant: VariantReport) -> str:
    """One line with everything measured on a variant."""
    cells = zip(ROW_TITLES, row(variant), strict=True)
    return ", ".join(f"{title} {cell}" for title, cell in cells if cell)


def row(variant: VariantReport) -> tuple[str, ...]:
    """One row of the table, for the terminal, markdown and HTML alike; unknown cells are empty.

    What the others are compared with says so where a comparison would stand; its logits are
    compared with PyTorch's recorded ones where there are some.
    """
    accuracy = variant.accuracy
    truthful = accuracy.truthful
    itself = REFERENCE_CELL if variant.is_reference or variant.recorded_itself else ""
    recorded = None if variant.recorded_itself else variant.recorded
    compared = recorded if variant.on_images is None else variant.on_images
    agreement = None if compared is None else compared.agreement
    numbers = None if compared is None else compared.numbers
    if numbers is None and recorded is not None:
        numbers = recorded.numbers
    return (
        variant.name,
        variant.backend,
        variant.verdict,
        str(accuracy.images),
        "" if truthful is None else f"{truthful.top1:.2f}",
        drop_cell(variant),
        counted_cell(variant),
        variant.compared_with or "",
        itself if agreement is None else f"{agreement:.2f}",
        itself if numbers is None else f"{numbers.sqnr_db:.1f}",
        itself if numbers is None else f"{numbers.max_abs:.2g}",
    )


def drop_cell(variant: VariantReport) -> str:
    """The drop that the checks decided by, with its interval."""
    found = None if variant.compared is None else variant.compared.estimate
    if found is None:
        return REFERENCE_CELL if variant.is_reference else ""
    low, high = found.interval.low, found.interval.high
    return f"{points(found.drop, '+')} ({points(low, '+')} … {points(high, '+')})"


def counted_cell(variant: VariantReport) -> str:
    """The drop as the plain count has it, whatever estimate decided."""
    counts = None if variant.compared is None else variant.compared.counts
    return "" if counts is None else points(counts.drop, "+")


def _earlier(found: tuple[EarlierComparison, ...], kind: str) -> dict[str, Any] | None:
    return next((since.to_json() for since in found if since.kind == kind), None)


def _images(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "images": len(evaluation.paths),
        "labelled": evaluation.truth is not None,
        "unreadable": [{"path": str(p), "error": why} for p, why in evaluation.unreadable],
        "seconds": {name: round(s, 3) for name, s in evaluation.seconds.items()},
    }
