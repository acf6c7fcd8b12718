"""`verify`: does a deployment still give PyTorch's answers, and may it ship?

    bundle + pictures ──one pass──▶ answers of every variant ──▶ figures ──▶ gates ──▶ verdict
           └── reference.npz ─replay─▶ distance from PyTorch's logits ────────┘

What the variants are compared with is the best at hand: a live checkpoint (needs torch) when one
is given, else fp32.onnx on the CPU, which was proven equal to PyTorch when it was exported. The
logits PyTorch gave at export, in reference.npz, are replayed always; without pictures they are
all there is, and on a Jetson they prove an engine without torch.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from resdeploy.deploy.accuracy import Accuracy, measure
from resdeploy.deploy.anchor import Anchor, find_anchor, recorded_answers
from resdeploy.deploy.baseline import (
    Baseline,
    BaselineComparison,
    compare_with_baseline,
    read_baseline,
)
from resdeploy.deploy.bundle import REFERENCE
from resdeploy.deploy.candidates import Candidate, open_candidates, open_float, precisions_of
from resdeploy.deploy.contract import labels_gate, metadata_gate
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.evaluation import Evaluation, Pictures, evaluate, read_data, replay
from resdeploy.deploy.explain import explain_all
from resdeploy.deploy.gate import Gate, Limits, gates, logits_gate, nothing_gate, worst
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.session import Model, open_model
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verify_report import VariantReport, VerifyReport

_CLASSES_NAMED = 5


def verify(
    bundle: str | Path,
    *,
    data: str | Path | None = None,
    checkpoint: str | Path | None = None,
    precisions: Sequence[Precision] = (),
    backends: Sequence[Backend | Literal["auto"]] = ("auto",),
    max_drop: float | None = None,
    min_top1: float | None = None,
    min_agreement: float | None = None,
    baseline: str | Path | None = None,
    strict: bool = False,
    explain: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> VerifyReport:
    """Compare a bundle's variants with PyTorch and judge them; a failed gate is a result.

    Args:
        bundle: a bundle's folder, or one ONNX file written by resdeploy.
        data: pictures in class folders or a list `path,label`; a plain folder has no accuracy but
            an agreement; None replays reference.npz alone.
        checkpoint: compare with this checkpoint live in PyTorch.
        precisions: default all that the bundle holds.
        max_drop: points of top-1 that may be lost (default 1); min_top1, min_agreement: percent.
        baseline: a file of earlier answers to compare with too.
        strict: an inconclusive gate fails too.
        explain: look for the layer that errs, and for a preprocessing that fits better.
        seed: of the bootstrap.

    Raises:
        InputError: a limit, the pictures or the baseline cannot be used.
        BundleError: the bundle, or its reference.npz, is damaged or of another network.
        BackendError: a backend is not usable on this machine.
    """
    limits = Limits(max_drop, min_top1, min_agreement)
    model = open_model(bundle)
    pictures = None if data is None else read_data(Path(data), model.manifest.labels)
    limits.checked(labelled=pictures is not None and pictures.truth is not None)
    earlier = _earlier(baseline, model, pictures)
    with ExitStack() as stack:
        candidates = open_candidates(model, precisions_of(model, precisions), backends, stack)
        anchor = find_anchor(model, candidates, checkpoint, stack, needed=pictures is not None)
        evaluation, replayed = _run(model, candidates, anchor, pictures, progress)
        variants, found = _judge(model, candidates, evaluation, replayed, limits, seed)
        explanation = None
        if explain:
            reference = open_float(model, candidates, stack)
            figures = [variant.accuracy for variant in variants]
            explanation = explain_all(
                model, candidates, figures, evaluation, pictures, reference, progress
            )
            found = (*found, *explanation.gates())
    since = None
    if earlier is not None and evaluation is not None:
        since = compare_with_baseline(earlier, evaluation, [v.name for v in variants], seed=seed)
        found = (*found, *since.gates(limits))
    verdict = worst(gate.verdict for gate in found)
    return VerifyReport(
        bundle=Path(bundle),
        manifest=model.manifest,
        verdict="fail" if strict and verdict == "inconclusive" else verdict,
        strict=strict,
        reference=anchor.sentence,
        variants=variants,
        gates=found,
        evaluation=evaluation,
        baseline=since,
        explanation=explanation,
        notes=(*anchor.notes, *_remarks(model, evaluation, replayed), *_changes(since)),
    )


def _earlier(
    baseline: str | Path | None, model: Model, pictures: Pictures | None
) -> Baseline | None:
    """The baseline to compare with, read before minutes of work."""
    if baseline is None:
        return None
    if pictures is None:
        raise InputError(f"{baseline}: a baseline needs the pictures it was saved with: add --data")
    return read_baseline(Path(baseline), model.manifest)


def _run(
    model: Model,
    candidates: Sequence[Candidate],
    anchor: Anchor,
    pictures: Pictures | None,
    progress: Progress,
) -> tuple[Evaluation | None, Evaluation | None]:
    """The answers to the pictures, and to the recorded inputs; at least one of them."""
    recorded = recorded_answers(model, anchor)
    sessions = {candidate.name: candidate.session for candidate in candidates}
    replayed = None if recorded is None else replay(recorded, sessions, progress=progress)
    if pictures is None:
        if replayed is None:
            raise InputError(f"{model.path}: no {REFERENCE} beside it: give pictures with --data")
        return None, replayed
    if anchor.name is not None and anchor.session is not None:
        sessions[anchor.name] = anchor.session
    preprocess = model.manifest.preprocess
    evaluation = evaluate(pictures, preprocess, sessions, reference=anchor.name, progress=progress)
    return evaluation, replayed


def _judge(
    model: Model,
    candidates: Sequence[Candidate],
    evaluation: Evaluation | None,
    replayed: Evaluation | None,
    limits: Limits,
    seed: int,
) -> tuple[tuple[VariantReport, ...], tuple[Gate, ...]]:
    """Figures and gates of every variant, then what concerns them all."""
    variants: list[VariantReport] = []
    found: list[Gate] = []
    for candidate in candidates:
        name = candidate.name
        on_pictures = None if evaluation is None else measure(evaluation, name, seed=seed)
        recorded = None if replayed is None else measure(replayed, name, seed=seed)
        own = _gates_of(model, candidate, on_pictures, recorded, evaluation, limits)
        variants.append(
            VariantReport(
                name=name,
                precision=candidate.precision,
                variant=candidate.variant,
                backend=candidate.backend,
                on_pictures=on_pictures,
                recorded=recorded,
                verdict=worst(gate.verdict for gate in own),
            )
        )
        found += own
    labels = None if evaluation is None else labels_gate(evaluation, model.manifest.labels)
    return tuple(variants), tuple(found if labels is None else [*found, labels])


def _gates_of(
    model: Model,
    candidate: Candidate,
    on_pictures: Accuracy | None,
    recorded: Accuracy | None,
    evaluation: Evaluation | None,
    limits: Limits,
) -> list[Gate]:
    name, precision = candidate.name, candidate.precision
    found = []
    if recorded is not None:
        found.append(logits_gate(name, precision, recorded, inputs="recorded inputs"))
    elif on_pictures is not None and on_pictures.numbers is not None:
        found.append(logits_gate(name, precision, on_pictures, inputs="pictures"))
    if evaluation is not None and on_pictures is not None:
        found += gates(name, on_pictures, limits, pictures=tuple(map(str, evaluation.paths)))
    elif recorded is not None and not recorded.not_finite:
        found += gates(name, recorded, limits, pictures=())
    if not found:
        found.append(nothing_gate(name))
    contract = metadata_gate(model, candidate)
    return found if contract is None else [*found, contract]


def _remarks(
    model: Model, evaluation: Evaluation | None, replayed: Evaluation | None
) -> tuple[str, ...]:
    remarks = []
    if replayed is None:
        remarks.append(f"no {REFERENCE}: PyTorch's recorded answers were not replayed")
    if evaluation is not None and evaluation.unreadable:
        path, why = evaluation.unreadable[0]
        remarks.append(
            f"{len(evaluation.unreadable)} pictures could not be read and were left out, "
            f"the first is {path}: {why}"
        )
    if evaluation is not None and evaluation.truth is not None:
        labels = model.manifest.labels
        counts = np.bincount(evaluation.truth, minlength=len(labels))
        missing = [labels[k] for k in np.flatnonzero(counts == 0)]
        if missing:
            more = ", …" if len(missing) > _CLASSES_NAMED else ""
            remarks.append(
                f"{len(missing)} of {len(labels)} classes have no pictures, their accuracy is "
                f"unknown: {', '.join(missing[:_CLASSES_NAMED])}{more}"
            )
    return tuple(remarks)


def _changes(since: BaselineComparison | None) -> tuple[str, ...]:
    if since is None:
        return ()
    remarks = []
    if since.added or since.removed:
        remarks.append(
            f"{since.source.name}: compared on {since.shared} pictures; {since.added} are new, "
            f"{since.removed} are gone"
        )
    if since.missing:
        remarks.append(f"{since.source.name}: has no answers of {', '.join(since.missing)}")
    return tuple(remarks)
