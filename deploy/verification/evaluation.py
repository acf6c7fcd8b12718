"""What several sessions answered to the same images: a few numbers per image and session.

Answers and differences are made batch by batch (`deploy.metrics.logits`) and the logits dropped,
so memory does not grow with the number of classes. Where the true classes are known, the logits of
evenly spaced images are kept, so many that they hold at most four million values for a session:
what `metrics.calibrated_drop` estimates the drop from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from resdeploy.deploy.arrays import Float32s, Indices
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.images.dataset import Images, evenly_spaced
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.images.spread import Open
from resdeploy.deploy.metrics.logits import (
    Answers,
    Differences,
    answers,
    differences,
    join_answers,
    join_differences,
)
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.session import Session
from resdeploy.deploy.verification.forward_pass import (
    Batch,
    ForwardPass,
    Sessions,
    forward_images,
    forward_inputs,
)

RECORDED = "recorded"

_KEPT_VALUES = 4_000_000


@dataclass(frozen=True)
class KeptLogits:
    """Logits (n, K) of every session by name, for `positions` (n,) among the readable images."""

    positions: Indices
    logits: Mapping[str, Float32s]


@dataclass(frozen=True)
class Evaluation:
    """What all sessions answered to the images that could be read.

    Attributes:
        paths, sha256: of the n readable images; empty for recorded inputs.
        truth: (n,) true classes, or None.
        answers: session's name -> its answers; the reference's among them when there is one.
        differences: session's name -> distance of its logits from the reference's.
        reference: the name in `answers` of what the others are compared with, or None.
        unreadable: the images left out, each with the reason.
        seconds: work done for "decode" and every session, summed over threads.
        kept: logits of some images; None where nothing is labelled or compared.
    """

    paths: tuple[Path, ...]
    sha256: tuple[str, ...]
    truth: Indices | None
    answers: Mapping[str, Answers]
    differences: Mapping[str, Differences]
    reference: str | None
    unreadable: tuple[tuple[Path, str], ...]
    seconds: Mapping[str, float]
    kept: KeptLogits | None = None


@dataclass(frozen=True)
class _Compared:
    """What is kept of a batch; `rows` of it have their logits kept."""

    answers: Mapping[str, Answers]
    differences: Mapping[str, Differences]
    sha256: tuple[str, ...] = ()
    rows: Indices | None = None
    logits: Mapping[str, Float32s] | None = None


def evaluate(
    images: Images,
    preprocess: Preprocess,
    sessions: Mapping[str, Session],
    *,
    reference: str | None,
    step: str = "verifying",
    progress: Progress = silent,
    opened: Open[Sessions] | None = None,
) -> Evaluation:
    """Run every session on every image; `reference` names the session to compare with.

    Workers that have the images open sessions of the same names by `opened`.

    Raises:
        InputError: more than 5 % of the images cannot be read (fewer are left out and listed).
    """
    chosen = _images_kept(images, sessions, reference)
    truth = images.truth  # the paths need not travel with `keep`

    def keep(batch: Batch) -> _Compared:
        known = None if truth is None else truth[list(batch.positions)]
        expected = None if reference is None else batch.logits[reference]
        digests = tuple(sha256_file(file) for file in batch.files)
        found = _compared(batch.logits, expected, known, digests)
        rows = np.flatnonzero([position in chosen for position in batch.positions])
        logits = {name: values[rows] for name, values in batch.logits.items()}
        return replace(found, rows=rows, logits=logits)

    done = forward_images(
        images, preprocess, sessions, keep, step=step, progress=progress, opened=opened
    )
    return _evaluation(images, done, reference, kept=bool(chosen))


def _evaluation(
    images: Images, done: ForwardPass[_Compared], reference: str | None, *, kept: bool
) -> Evaluation:
    return Evaluation(
        paths=tuple(images.paths[position] for position in done.positions),
        sha256=tuple(digest for batch in done.kept for digest in batch.sha256),
        truth=None if images.truth is None else images.truth[list(done.positions)],
        answers=_joined_answers(done.kept),
        differences=_joined_differences(done.kept),
        reference=reference,
        unreadable=done.unreadable,
        seconds=done.seconds,
        kept=_joined_logits(done.kept) if kept else None,
    )


def replay(
    recorded: Reference,
    sessions: Mapping[str, Session],
    *,
    step: str = "replaying the recorded logits",
    progress: Progress = silent,
) -> Evaluation:
    """Run every session on the recorded inputs and compare with the recorded logits."""

    def keep(batch: Batch) -> _Compared:
        expected = recorded.logits[list(batch.positions)]
        found = _compared(batch.logits, expected, None, ())
        return _Compared({RECORDED: answers(expected), **found.answers}, found.differences)

    done = forward_inputs(recorded.inputs, sessions, keep, step=step, progress=progress)
    return Evaluation(
        paths=(),
        sha256=(),
        truth=None,
        answers=_joined_answers(done.kept),
        differences=_joined_differences(done.kept),
        reference=RECORDED,
        unreadable=(),
        seconds=done.seconds,
    )


def _compared(
    logits: Mapping[str, Float32s],
    expected: Float32s | None,
    truth: Indices | None,
    sha256: tuple[str, ...],
) -> _Compared:
    found = {name: answers(values, truth) for name, values in logits.items()}
    if expected is None:
        return _Compared(found, {}, sha256)
    apart = {name: differences(expected, values) for name, values in logits.items()}
    return _Compared(found, apart, sha256)


def _images_kept(
    images: Images, sessions: Mapping[str, Session], reference: str | None
) -> frozenset[int]:
    """The images, among all given, whose logits are kept."""
    if images.truth is None or reference is None:
        return frozenset()
    classes = max(int(session.output.shape[1]) for session in sessions.values())
    return frozenset(evenly_spaced(len(images.paths), max(1, _KEPT_VALUES // classes)))


def _joined_logits(batches: Sequence[_Compared]) -> KeptLogits:
    """The kept rows of all batches, counted among the readable images."""
    positions, start = [], 0
    parts: list[Mapping[str, Float32s]] = []
    for batch in batches:
        if batch.rows is not None and batch.logits is not None:
            positions.append(batch.rows + start)
            parts.append(batch.logits)
        start += len(next(iter(batch.answers.values())).index)
    names = parts[0]
    return KeptLogits(
        np.concatenate(positions),
        {name: np.concatenate([part[name] for part in parts]) for name in names},
    )


def _joined_answers(batches: Sequence[_Compared]) -> dict[str, Answers]:
    names = batches[0].answers
    return {name: join_answers([batch.answers[name] for batch in batches]) for name in names}


def _joined_differences(batches: Sequence[_Compared]) -> dict[str, Differences]:
    names = batches[0].differences
    return {
        name: join_differences([batch.differences[name] for batch in batches]) for name in names
    }
