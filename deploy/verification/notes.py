"""What a reader of a verification should know besides the figures, as sentences."""

from collections.abc import Sequence

import numpy as np

from resdeploy.deploy.arrays import Indices
from resdeploy.deploy.bundle.bundle import REFERENCE
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.targets import is_int8
from resdeploy.deploy.verification.baseline import EarlierComparison
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.limits import Limits
from resdeploy.deploy.verification.checks.promise import PROMISED
from resdeploy.deploy.verification.comparison_target import LIVE
from resdeploy.deploy.verification.judge import Answered
from resdeploy.deploy.verification.reports.report import VerifyReport

_CLASSES_NAMED = 5


def notes_on_images(manifest: Manifest, answered: Answered) -> list[str]:
    """No recorded logits, unreadable images, classes without images."""
    notes = []
    if answered.replayed is None:
        notes.append(f"there is no {REFERENCE}, so no recorded logits were replayed")
    evaluation = answered.evaluation
    if evaluation is None:
        return notes
    if evaluation.unreadable:
        path, why = evaluation.unreadable[0]
        notes.append(
            f"{_images(len(evaluation.unreadable))} could not be read and took no part; "
            f"the first is {path}: {why}"
        )
    if evaluation.truth is not None:
        notes += _classes_without_images(evaluation.truth, manifest.labels)
    return notes


def files_not_run(model: Model, candidates: Sequence[Candidate]) -> list[Variant]:
    """The variants that no backend runs here; their files are checked by their hashes all the same.

    Raises:
        BundleError: such a file is missing or was altered.
    """
    run = {candidate.variant for candidate in candidates}
    rest = [name for name in model.manifest.variants if name not in run]
    for name in rest:
        model.graph(name)
    return rest


def notes_on_files_not_run(report: VerifyReport, rest: Sequence[Variant]) -> list[str]:
    """Their names, without fp32 where it ran as what the others are compared with."""
    reference = None if report.evaluation is None else report.evaluation.reference
    ran = () if reference in (None, LIVE) else ("fp32",)
    names = [report.manifest.variants[name].file for name in rest if name not in ran]
    return [f"not run, only compared with the manifest's SHA-256: {', '.join(names)}"] * bool(names)


def notes_on_guards(
    manifest: Manifest, variants: Sequence[Variant], answered: Answered, limits: Limits
) -> list[str]:
    """What nothing watches over: the checkpoint itself, and INT8 of which nothing is promised.

    Agreement with a checkpoint says nothing about how good it is.
    """
    notes = []
    if answered.evaluation is not None and not answered.earlier and limits.min_top1 is None:
        notes.append(
            "nothing guards against a bad checkpoint: compare with an earlier release by "
            "--against or --baseline, or set --min-top1"
        )
    promised = manifest.proofs.get(PROMISED, {})
    unknown = [name for name in variants if is_int8(name) and name not in promised]
    if unknown:
        notes.append(
            f"{', '.join(unknown)}: how good it was when it was made is not known, so a damaged "
            "file may pass: quantize again to record it"
        )
    return notes


def notes_on_earlier(since: EarlierComparison) -> list[str]:
    """Images and variants that only one of the two has."""
    notes = []
    changed = [f"new: {since.added}, gone: {since.removed}"] * bool(since.added or since.removed)
    remarks = since.remarks or changed  # a release answers every image of a class that it knows
    if remarks:
        compared = f"{since.source.name}: compared on {_images(since.shared)}"
        notes.append("; ".join((compared, *remarks)))
    if since.missing:
        notes.append(f"{since.source.name} has no answers of {', '.join(since.missing)}")
    return notes


def _classes_without_images(truth: Indices, labels: Sequence[str]) -> list[str]:
    counts = np.bincount(truth, minlength=len(labels))
    missing = [labels[k] for k in np.flatnonzero(counts == 0).tolist()]
    if not missing:
        return []
    more = ", …" if len(missing) > _CLASSES_NAMED else ""
    return [
        f"{len(missing)} of {len(labels)} classes have no images, so their accuracy is unknown: "
        f"{', '.join(missing[:_CLASSES_NAMED])}{more}"
    ]


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
