"""Another release of the same classifier as the reference of a verification (`--against`).

The other release may be a bundle, a lone ONNX file or an engine. It runs on the same
images with its own preprocessing, and its classes are found by name: its architecture may differ,
and so may the order and number of its labels. Images of classes that it does not know are left out.
A variant is compared with the same variant of the other release, or with its only one.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from resdeploy.deploy.arrays import Indices
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import Model, open_model, precisions_of
from resdeploy.deploy.engine.sidecar import read_sidecar
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.metrics.logits import Answers
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.baseline import EarlierComparison, paired_with
from resdeploy.deploy.verification.candidates import open_candidates
from resdeploy.deploy.verification.evaluation import Evaluation, KeptLogits, evaluate

_NAMED = 3


@dataclass(frozen=True)
class Release:
    """A release that was found, before anything runs.

    Attributes:
        classes: (classes of the release,) the same class among the new labels, or -1.
        unknown: the new labels that it lacks.
        precisions, backends: what of it is opened; empty for the backends of the new one.
    """

    source: Path
    model: Model
    classes: Indices
    unknown: tuple[str, ...]
    precisions: tuple[Precision, ...]
    backends: tuple[Backend, ...]


def find_release(path: Path, manifest: Manifest) -> Release:
    """Read another release and find its classes among those of `manifest`.

    Raises:
        BundleError: nothing that can be compared with, or damaged.
        InputError: it has no class in common.
    """
    model = open_model(path)
    # an engine is of one precision and runs on its own library, whatever was asked of the new one
    precisions = (model.precision,) if model.is_engine else ()
    backends = (read_sidecar(path).machine.flavor,) if model.is_engine else ()
    places = {label: place for place, label in enumerate(manifest.labels)}
    classes = np.array([places.get(label, -1) for label in model.manifest.labels], np.int64)
    if not (classes >= 0).any():
        theirs, ours = (", ".join(m.labels[:_NAMED]) for m in (model.manifest, manifest))
        raise InputError(
            f"{path}: none of its classes ({theirs}, …) is among the bundle's ({ours}, …): give a "
            "release of the same classifier"
        )
    theirs_too = set(model.manifest.labels)
    unknown = tuple(label for label in manifest.labels if label not in theirs_too)
    return Release(path, model, classes, unknown, precisions, backends)


def compare_with_release(
    release: Release,
    evaluation: Evaluation,
    names: Sequence[str],
    backends: Sequence[Backend | Literal["auto"]],
    *,
    seed: int,
    progress: Progress,
) -> EarlierComparison:
    """Run the other release on the images that were read, and pair its answers with today's.

    Raises:
        InputError: no variant in common, or none of the images is of a class that both know.
        BackendError: a backend is not usable on this machine.
    """
    theirs = _run(release, evaluation, backends, progress)
    only = next(iter(theirs.answers)) if len(theirs.answers) == 1 else None
    held = {name: other for name in names if (other := name if name in theirs.answers else only)}
    if not held:
        raise InputError(
            f"{release.source}: it has {', '.join(theirs.answers)}, none of {', '.join(names)}: "
            "name the precisions that both have with --precision"
        )
    positions, places = _shared(release, evaluation, theirs)

    def pair(name: str, other: str) -> Accuracy:
        then = _renamed(theirs.answers[other], release.classes, places)
        kept = _logits(release, evaluation, theirs, name, other, positions, places)
        return paired_with(evaluation, name, then, positions, seed, kept=kept)

    return EarlierComparison(
        source=release.source,
        shared=len(positions),
        added=len(evaluation.paths) - len(positions),
        removed=0,
        variants={name: pair(name, other) for name, other in held.items()},
        missing=tuple(name for name in names if name not in held),
        kind="against",
        remarks=_other_classes(release, len(evaluation.paths) - len(positions)),
    )


def _other_classes(release: Release, left_out: int) -> tuple[str, ...]:
    """In what its classes differ, and what that does to the comparison."""
    labels = release.model.manifest.labels
    foreign = [label for label, place in zip(labels, release.classes, strict=True) if place < 0]
    remarks = []
    if release.unknown:
        which = f"its classes lack {_named(release.unknown)}"
        remarks.append(f"{which}, so {left_out} images were left out" if left_out else which)
    if foreign:
        remarks.append(f"an answer of {_named(foreign)}, which the bundle lacks, counts as wrong")
    return tuple(remarks)


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def _run(
    release: Release,
    evaluation: Evaluation,
    backends: Sequence[Backend | Literal["auto"]],
    progress: Progress,
) -> Evaluation:
    """What the release answers to the images that were read, by its own preprocessing."""
    with ExitStack() as stack:
        wanted = precisions_of(release.model, release.precisions)
        opened = open_candidates(release.model, wanted, release.backends or backends, stack)
        return evaluate(
            Images(evaluation.paths, _their_truth(release, evaluation)),
            release.model.manifest.preprocess,
            {candidate.name: candidate.session for candidate in opened},
            reference=opened[0].name,
            step=f"running {release.source.name}",
            progress=progress,
        )


def _their_truth(release: Release, evaluation: Evaluation) -> Indices | None:
    """The true classes as the release numbers them; its first one for classes it lacks."""
    if evaluation.truth is None:
        return None
    numbers = np.zeros(int(max(release.classes.max(), evaluation.truth.max())) + 1, np.int64)
    known = np.flatnonzero(release.classes >= 0)
    numbers[release.classes[known]] = known
    return np.asarray(numbers[evaluation.truth])


def _shared(
    release: Release, evaluation: Evaluation, theirs: Evaluation
) -> tuple[list[int], list[int]]:
    """The images of known classes that both read: their places in one and the other."""
    at = {path: place for place, path in enumerate(theirs.paths)}
    known = set(release.classes.tolist())
    positions = [
        position
        for position, path in enumerate(evaluation.paths)
        if path in at and (evaluation.truth is None or int(evaluation.truth[position]) in known)
    ]
    if not positions:
        raise InputError(f"{release.source}: it knows the class of none of the images")
    return positions, [at[evaluation.paths[position]] for position in positions]


def _renamed(theirs: Answers, classes: Indices, places: list[int]) -> Answers:
    """The answers at `places` with the new numbers of classes."""
    chosen = Answers(*(values[places] for values in vars(theirs).values()))
    return Answers(
        classes[chosen.index], chosen.confidence, chosen.top5, chosen.margin, chosen.finite
    )


def _logits(
    release: Release,
    evaluation: Evaluation,
    theirs: Evaluation,
    name: str,
    other: str,
    positions: list[int],
    places: list[int],
) -> KeptLogits | None:
    """Both logits where the classes are the same ones in whatever order; else None."""
    ours, old = evaluation.kept, theirs.kept
    labels = release.classes
    if ours is None or old is None or sorted(labels.tolist()) != list(range(len(labels))):
        return None
    if ours.logits[name].shape[1] != len(labels):
        return None
    mine = {int(p): row for row, p in enumerate(ours.positions)}
    their = {int(p): row for row, p in enumerate(old.positions)}
    rows = [
        (k, mine[p], their[q])
        for k, (p, q) in enumerate(zip(positions, places, strict=True))
        if p in mine and q in their
    ]
    if not rows:
        return None
    kept, now, then = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    order = np.argsort(labels)
    return KeptLogits(
        kept, {"now": ours.logits[name][now], "then": old.logits[other][then][:, order]}
    )
