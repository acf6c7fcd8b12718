"""`verify`: does a deployment still give PyTorch's answers, and may it ship.

    bundle + images ──one pass──▶ answers of every variant ──▶ figures ──▶ gates ──▶ verdict
           └── reference.npz ─replay─▶ distance from PyTorch's logits ────────┘

What the variants are compared with is the best at hand: a checkpoint live in PyTorch (needs
torch) when one is given, else fp32.onnx on the CPU, which was proven equal to PyTorch when it was
exported. The logits PyTorch gave at export, in reference.npz, are replayed always; without images
they are all there is, and on a Jetson they prove an engine without torch.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import Literal

from resdeploy.deploy.bundle.bundle import REFERENCE
from resdeploy.deploy.bundle.model import precisions_of
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.baseline import Baseline, compare_with_baseline
from resdeploy.deploy.verification.candidates import Candidate, open_candidates, open_float
from resdeploy.deploy.verification.checks.gate import Gate, worst
from resdeploy.deploy.verification.checks.latency import latency_gates, latency_gates_against
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.comparison_target import (
    ComparisonTarget,
    OpenLive,
    check_workers,
    find_target,
    named_sessions,
    opened_by_workers,
    recorded_logits,
    recorder,
)
from resdeploy.deploy.verification.device.address import Device, DeviceFacts
from resdeploy.deploy.verification.device.session import open_on_device
from resdeploy.deploy.verification.evaluation import evaluate, replay
from resdeploy.deploy.verification.explain import Explanation, MeasureLayers, explain_all
from resdeploy.deploy.verification.features.verify import refuse_about_classes, verify_backbone
from resdeploy.deploy.verification.judge import Answered, Judged, judge_variants, with_verdict
from resdeploy.deploy.verification.notes import (
    files_not_run,
    notes_on_earlier,
    notes_on_files_not_run,
    notes_on_guards,
    notes_on_images,
)
from resdeploy.deploy.verification.release import Release, compare_with_release
from resdeploy.deploy.verification.reports.closing import closing_sentence
from resdeploy.deploy.verification.reports.report import VerifyReport
from resdeploy.deploy.verification.task import Task, read_task


def verify(
    bundle: StrPath,
    *,
    data: StrPath | Images | None = None,
    live: OpenLive | None = None,
    precisions: Sequence[Precision] = (),
    backends: Sequence[Backend | Literal["auto"]] = ("auto",),
    max_drop: float | None = None,
    min_top1: float | None = None,
    min_agreement: float | None = None,
    max_class_drop: float | None = None,
    max_slower: float | None = None,
    baseline: StrPath | None = None,
    against: StrPath | None = None,
    on: Device | None = None,
    strict: bool = False,
    explain: MeasureLayers | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> VerifyReport:
    """Compare a bundle's variants with PyTorch and judge them; a failed check is a result.

    `data` is, or names, images in class folders or a list `path,label`; None replays reference.npz.
    `live` opens a checkpoint in PyTorch to compare with. Limits are in points and percent.
    `baseline` is a file of earlier answers, `against` another release. `on` is a device that runs
    the variants. `strict` fails what is undecided or not checked.

    Raises InputError for limits, images or a baseline of no use, BundleError, BackendError.
    """
    limits = Limits(max_drop, min_top1, min_agreement, max_class_drop, max_slower)
    task = read_task(bundle, data, baseline, against, limits, on, seed, progress)
    check_workers(
        task.images, {"--checkpoint": live, "--explain": explain, "--against": against, "--on": on}
    )
    with ExitStack() as stack:
        candidates, device = _opened(task, precisions, backends, stack)
        rest = files_not_run(task.model, candidates)  # altered ones are found before the work
        report = _verified(task, candidates, live, backends, explain, stack, strict=strict)
    notes = (*report.notes, *notes_on_files_not_run(report, rest))
    return replace(report, device=device, notes=notes)


def _opened(
    task: Task,
    precisions: Sequence[Precision],
    backends: Sequence[Backend | Literal["auto"]],
    stack: ExitStack,
) -> tuple[list[Candidate], DeviceFacts | None]:
    """The variants, here or on the device; `stack` closes them."""
    wanted = precisions_of(task.model, precisions)
    if task.device is None:
        return open_candidates(task.model, wanted, backends, stack), None
    return open_on_device(task.model, wanted, backends, task.device, stack, task.progress)


def _verified(
    task: Task,
    candidates: Sequence[Candidate],
    live: OpenLive | None,
    backends: Sequence[Backend | Literal["auto"]],
    explain: MeasureLayers | None,
    stack: ExitStack,
    *,
    strict: bool,
) -> VerifyReport:
    """A classifier by its answers, a backbone by its feature maps."""
    if task.model.manifest.features:
        refuse_about_classes(task.model, task.limits, {"--explain": explain})
        return verify_backbone(
            task.model, task.images, live, candidates, stack, strict=strict, seed=task.seed,
            progress=task.progress,
        )  # fmt: skip
    target = find_target(task.model, candidates, live, stack, needed=task.images is not None)
    answered = _with_earlier(task, _answered(task, candidates, target), candidates, backends)
    judged = _judged(task, candidates, answered, strict=strict)
    explanation = _explained(task, candidates, answered, judged, explain, stack)
    return _report(task, target, answered, judged, explanation, strict=strict)


def _answered(task: Task, candidates: Sequence[Candidate], target: ComparisonTarget) -> Answered:
    """The answers to the images, and to the recorded inputs; at least one of them."""
    recorded = recorded_logits(task.model, target)
    whose = recorder(task.model, target)
    sessions = {candidate.name: candidate.session for candidate in candidates}
    replayed = None if recorded is None else replay(recorded, sessions, progress=task.progress)
    if task.images is None:
        if replayed is None:
            raise InputError(
                f"{task.model.path}: no {REFERENCE} beside it: give images with --data"
            )
        return Answered(None, replayed, recorded_by=whose)
    evaluation = evaluate(
        task.images,
        task.model.manifest.preprocess,
        named_sessions(candidates, target),
        reference=target.name,
        progress=task.progress,
        opened=opened_by_workers(candidates),
    )
    return Answered(evaluation, replayed, recorded_by=whose)


def _with_earlier(
    task: Task,
    answered: Answered,
    candidates: Sequence[Candidate],
    backends: Sequence[Backend | Literal["auto"]],
) -> Answered:
    """The answers with those of the baseline and of the other release beside them."""
    evaluation, images = answered.evaluation, task.images
    if evaluation is None or images is None:
        return answered
    names = [candidate.name for candidate in candidates]
    found = []
    if task.baseline is not None:
        found.append(compare_with_baseline(task.baseline, evaluation, names, seed=task.seed))
    if isinstance(task.release, Baseline):
        saved = compare_with_baseline(task.release, evaluation, names, seed=task.seed)
        found.append(replace(saved, kind="against"))
    elif task.release is not None:
        found.append(
            compare_with_release(
                task.release, evaluation, names, backends, seed=task.seed, progress=task.progress
            )
        )
    return replace(answered, earlier=tuple(found))


def _judged(
    task: Task, candidates: Sequence[Candidate], answered: Answered, *, strict: bool
) -> Judged:
    """All checks; the times are taken last, when nothing else runs."""
    slower = task.limits.max_slower
    timed: Sequence[Gate] = ()
    if slower is not None and isinstance(task.release, Release):
        theirs = next(iter(task.release.backends), None)
        timed = latency_gates_against(
            task.model, candidates, task.release.model, slower, other_backend=theirs
        )
    elif slower is not None:
        timed = latency_gates(task.model, candidates, slower)
    return judge_variants(
        task.model,
        candidates,
        answered,
        task.limits,
        seed=task.seed,
        further=timed,
        strict=strict,
    )


def _explained(
    task: Task,
    candidates: Sequence[Candidate],
    answered: Answered,
    judged: Judged,
    measure_layers: MeasureLayers | None,
    stack: ExitStack,
) -> Explanation | None:
    if measure_layers is None:
        return None
    return explain_all(
        task.model,
        candidates,
        [variant.accuracy for variant in judged.variants],
        answered.evaluation,
        task.images,
        open_float(task.model, candidates, stack),
        measure_layers,
        task.progress,
    )


def _report(
    task: Task,
    target: ComparisonTarget,
    answered: Answered,
    judged: Judged,
    explanation: Explanation | None,
    *,
    strict: bool,
) -> VerifyReport:
    gates = [*judged.gates, *(() if explanation is None else explanation.gates())]
    verdict = worst(gate.verdict for gate in gates)
    evaluation = answered.evaluation
    notes = [
        *target.notes,
        *notes_on_images(task.model.manifest, answered),
        *notes_on_guards(
            task.model.manifest, [v.variant for v in judged.variants], answered, task.limits
        ),
    ]
    for since in answered.earlier:
        notes += notes_on_earlier(since)
    return VerifyReport(
        bundle=task.path,
        manifest=task.model.manifest,
        verdict=verdict,
        reason=closing_sentence(verdict, gates),
        strict=strict,
        reference=_compared_with(task, target, answered, judged),
        variants=tuple(with_verdict(v, gates, answered.earlier) for v in judged.variants),
        gates=tuple(gates),
        evaluation=evaluation,
        earlier=answered.earlier,
        explanation=explanation,
        notes=tuple(notes),
        when=datetime.now().astimezone().strftime("%-d %B %Y, %H:%M %Z"),
    )


def _compared_with(task: Task, target: ComparisonTarget, answered: Answered, judged: Judged) -> str:
    """What the variants were compared with; what is compared with nothing else is no comparison."""
    evaluation, replayed = answered.evaluation, answered.replayed
    compared = evaluation is not None and not all(v.is_reference for v in judged.variants)
    itself = all(variant.recorded_itself for variant in judged.variants)
    return target.named_on(
        len(evaluation.paths) if evaluation is not None and compared else None,
        None if replayed is None else len(next(iter(replayed.answers.values())).index),
        "its own" if itself else f"{answered.recorded_by}'s",
        others=[f"{since.source.name} on {since.shared} images" for since in answered.earlier],
    )
