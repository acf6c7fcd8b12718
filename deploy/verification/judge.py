"""Turns the answers of every variant into figures and checks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.baseline import EarlierComparison
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.calibration_images import calibration_images_gate
from resdeploy.deploy.verification.checks.comparison import comparison_gates
from resdeploy.deploy.verification.checks.consistency import (
    labels_gate,
    metadata_gate,
    refused_gate,
    statistics_gate,
)
from resdeploy.deploy.verification.checks.correction import corrected
from resdeploy.deploy.verification.checks.gate import (
    EVERY_VARIANT,
    Gate,
    not_checked,
    strictly,
    worst,
)
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.checks.logits import (
    answers_gate,
    finite_gate,
    logits_gate,
    nothing_gate,
)
from resdeploy.deploy.verification.checks.promise import (
    ON_IMAGES,
    ON_RECORDED,
    promise_gate,
    read_promise,
    recorded_promise_gate,
)
from resdeploy.deploy.verification.checks.shares import top1_gate
from resdeploy.deploy.verification.comparison_target import FLOAT_GRAPH, reference_name
from resdeploy.deploy.verification.evaluation import Evaluation
from resdeploy.deploy.verification.measure import measure
from resdeploy.deploy.verification.reports.report import VariantReport


@dataclass(frozen=True)
class Answered:
    """The answers to the images, and to the inputs recorded at export; one of them is there.

    `recorded_by` gave the logits that the replayed ones are compared with. `earlier` are
    comparisons with a baseline or another release, paired image by image.
    """

    evaluation: Evaluation | None
    replayed: Evaluation | None
    earlier: tuple[EarlierComparison, ...] = ()
    recorded_by: str = "PyTorch"


@dataclass(frozen=True)
class Judged:
    """Every variant with its figures and verdict, and the checks behind the verdicts."""

    variants: tuple[VariantReport, ...]
    gates: tuple[Gate, ...]


def judge_variants(
    model: Model,
    candidates: Sequence[Candidate],
    answered: Answered,
    limits: Limits,
    *,
    seed: int,
    further: Sequence[Gate] = (),
    strict: bool = False,
) -> Judged:
    """Figures and checks of every variant, then the checks that concern them all.

    `further` are checks that somebody else made. All that are tests are corrected together.
    """
    evaluation = answered.evaluation
    variants = [_measured(candidate, answered, seed) for candidate in candidates]
    found: list[Gate] = []
    for candidate, variant in zip(candidates, variants, strict=True):
        own = _gates_of(model, candidate, variant, answered, limits)
        # what others are compared with needs no check of its own
        if not own and not (variant.is_reference and len(variants) > 1):
            own = [nothing_gate(variant.name)]
        about_files = metadata_gate(model, candidate), refused_gate(model.manifest, candidate)
        found += [*own, *(gate for gate in about_files if gate is not None)]
    labels = None if evaluation is None else labels_gate(evaluation, model.manifest.labels)
    of_all = [gate for gate in (labels, statistics_gate(model.manifest)) if gate is not None]
    found += [*of_all, *_unchecked(answered, limits), *further]
    found = corrected(found)
    if strict:
        found = strictly(found)
    return Judged(
        tuple(with_verdict(variant, found, answered.earlier) for variant in variants),
        tuple(found),
    )


def _measured(candidate: Candidate, answered: Answered, seed: int) -> VariantReport:
    name, evaluation, replayed = candidate.name, answered.evaluation, answered.replayed
    reference = None if evaluation is None else evaluation.reference
    return VariantReport(
        name=name,
        precision=candidate.precision,
        variant=candidate.variant,
        backend=candidate.backend,
        on_images=None if evaluation is None else measure(evaluation, name, seed=seed),
        recorded=None if replayed is None else measure(replayed, name, seed=seed),
        verdict="pass",
        is_reference=reference == name,
        reference=None if reference in (None, name) else reference_name(reference),
        recorded_itself=replayed is not None and _recorded_itself(candidate, answered.recorded_by),
    )


def _recorded_itself(candidate: Candidate, recorded_by: str) -> bool:
    """Whether the candidate is the graph that gave the recorded logits, where quantize ran it."""
    same = candidate.variant == "fp32" and candidate.backend == "ort-cpu"
    return same and recorded_by == FLOAT_GRAPH


def with_verdict(
    variant: VariantReport, gates: Sequence[Gate], earlier: Sequence[EarlierComparison]
) -> VariantReport:
    """The row's verdict is that of its worst check, and its drop that of its worst drop check."""
    own = [gate for gate in gates if gate.variant == variant.name]
    drops = [gate for gate in own if gate.name in ("max-drop", "baseline", "against")]
    drops = [gate for gate in drops if gate.value is not None]
    deciding = max(drops, key=lambda g: (worst([g.verdict]) != "pass", g.value), default=None)
    found = replace(variant, verdict=worst(gate.verdict for gate in own))
    for since in earlier:
        if deciding is not None and deciding.name == since.kind:
            shown = since.variants[variant.name]
            return replace(found, compared=shown, compared_with=since.source.name)
    return replace(found, compared=variant.on_images, compared_with=variant.reference)


def _gates_of(
    model: Model,
    candidate: Candidate,
    variant: VariantReport,
    answered: Answered,
    limits: Limits,
) -> list[Gate]:
    name, manifest = candidate.name, model.manifest
    evaluation = answered.evaluation
    paths = () if evaluation is None else tuple(map(str, evaluation.paths))
    found: list[Gate | None] = [
        *_recorded_gates(candidate, manifest, variant.recorded, answered.recorded_by),
    ]
    accuracy = variant.on_images
    if accuracy is not None:
        found.append(finite_gate(name, accuracy, paths))
        if not accuracy.not_finite:
            found += _image_gates(candidate, manifest, variant, accuracy, limits)
            if evaluation is not None:
                found.append(calibration_images_gate(manifest, candidate, evaluation))
            for since in answered.earlier:
                found += since.gates(name, limits, manifest.labels)
    elif variant.recorded is not None and limits.min_agreement is not None:
        found += comparison_gates(
            name, variant.recorded, limits, manifest.labels, against=answered.recorded_by
        )
    return [gate for gate in found if gate is not None]


def _recorded_gates(
    candidate: Candidate, manifest: Manifest, accuracy: Accuracy | None, recorded_by: str
) -> list[Gate]:
    """The recorded inputs: finite, near to the recorded logits, as near as promised."""
    if accuracy is None:
        return []
    name, precision = candidate.name, candidate.precision
    inputs = tuple(f"recorded input {i}" for i in range(accuracy.images))
    finite = finite_gate(name, accuracy, inputs)
    if finite is not None:
        return [finite]
    promise = read_promise(manifest.proofs, candidate.variant, ON_RECORDED)
    itself = _recorded_itself(candidate, recorded_by)
    whose = "its own at quantization" if itself else f"{recorded_by}'s"
    floor = logits_gate(name, precision, accuracy, whose=whose, inputs="recorded inputs")
    if promise is not None:
        kept: Gate | None = recorded_promise_gate(
            name, precision, accuracy, promise, backend=candidate.backend
        )
    else:
        kept = answers_gate(name, accuracy, recorded_by) if precision == "int8" else None
    return [gate for gate in (floor, kept) if gate is not None]


def _image_gates(
    candidate: Candidate,
    manifest: Manifest,
    variant: VariantReport,
    accuracy: Accuracy,
    limits: Limits,
) -> list[Gate]:
    """The images: against the reference, against the limits, against what was promised."""
    name, against = candidate.name, variant.reference or ""
    found: list[Gate | None] = []
    if variant.recorded is None and variant.reference is not None:
        whose = f"{against}'s"
        found.append(logits_gate(name, candidate.precision, accuracy, whose=whose, inputs="images"))
    promise = read_promise(manifest.proofs, candidate.variant, ON_IMAGES)
    if promise is not None:
        found.append(promise_gate(name, candidate.precision, accuracy, promise))
    if variant.reference is not None:
        found += comparison_gates(name, accuracy, limits, manifest.labels, against=against)
    if accuracy.truthful is not None and limits.min_top1 is not None:
        found.append(top1_gate(name, accuracy, accuracy.truthful, limits.min_top1))
    return [gate for gate in found if gate is not None]


def _unchecked(answered: Answered, limits: Limits) -> list[Gate]:
    """Checks that need true classes where there are none."""
    evaluation = answered.evaluation
    if evaluation is None or evaluation.truth is not None:
        return []
    why = "the true classes are not known: give --data with class folders or a list of path,label"
    asked = dict.fromkeys(["max-drop", *limits.needing_classes()])
    return [not_checked(name, EVERY_VARIANT, why) for name in asked]
