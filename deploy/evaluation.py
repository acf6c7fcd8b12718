"""Runs several sessions over the same pictures in one pass: each picture is decoded once.

Every thread takes a batch of pictures, decodes it and gives it to one session after the other;
only a few numbers per picture and session are kept (`deploy.compare`), so memory does not grow
with the number of classes. Sessions on the CPU should have one thread each: whole batches are
shared among the cores, which leaves none of them waiting.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from resdeploy.deploy.compare import (
    Answers,
    Differences,
    Indices,
    Logits,
    answers,
    differences,
    join_answers,
    join_differences,
)
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.machine import cores
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.pictures import (
    find_pictures,
    in_order,
    labelled_pictures,
    read_input,
)
from resdeploy.deploy.preprocess import Preprocess
from resdeploy.deploy.recording import Reference
from resdeploy.deploy.session import Session

UNREADABLE_SHARE = 0.05
DECODE = "decode"

_BATCH = 8
_RECORDED = "recorded"


@dataclass(frozen=True)
class Pictures:
    """Picture files, and their true classes (N,) where folders or a list name them."""

    paths: tuple[Path, ...]
    truth: Indices | None


@dataclass(frozen=True)
class Evaluation:
    """What all sessions answered to the pictures that could be read.

    Attributes:
        paths, sha256: of the n readable pictures; empty for a recorded reference.
        truth: (n,) true classes, or None.
        answers: session's name -> its answers; the reference's among them when there is one.
        differences: session's name -> distance of its logits from the reference's.
        reference: the name under which the reference stands in `answers`, or None.
        unreadable: the pictures left out, each with the reason.
        seconds: work done for "decode" and every session, summed over threads.
    """

    paths: tuple[Path, ...]
    sha256: tuple[str, ...]
    truth: Indices | None
    answers: Mapping[str, Answers]
    differences: Mapping[str, Differences]
    reference: str | None
    unreadable: tuple[tuple[Path, str], ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class _Batch:
    positions: list[int]
    sha256: list[str]
    unreadable: list[tuple[Path, str]]
    answers: dict[str, Answers]
    differences: dict[str, Differences]
    seconds: dict[str, float]


def read_data(data: Path, labels: Sequence[str]) -> Pictures:
    """The pictures of `--data`: class folders or a list `path,label`, else a plain folder.

    Raises:
        InputError: no pictures there, or a class that is not among `labels`.
    """
    if labels and (data.is_file() or _has_class_folders(data)):
        labelled = labelled_pictures(data, labels)
        truth = np.array([picture.index for picture in labelled], np.int64)
        return Pictures(tuple(picture.path for picture in labelled), truth)
    return Pictures(tuple(find_pictures([data])), None)


def evaluate(
    pictures: Pictures,
    preprocess: Preprocess,
    sessions: Mapping[str, Session],
    *,
    reference: str | None,
    progress: Progress = silent,
) -> Evaluation:
    """Run every session on every picture; `reference` names the session to compare with.

    Raises:
        InputError: more than 5 % of the pictures cannot be read (fewer are left out and listed).
    """
    jobs = [range(i, min(i + _BATCH, len(pictures.paths))) for i in _starts(len(pictures.paths))]

    def look(job: range) -> _Batch:
        return _look(pictures, job, preprocess, sessions, reference)

    batches: list[_Batch] = []
    unreadable: list[tuple[Path, str]] = []
    done = 0
    for job, batch in zip(jobs, in_order(look, jobs, threads=cores()), strict=True):
        done += len(job)
        unreadable += batch.unreadable
        _check_readable(unreadable, len(pictures.paths), last=done == len(pictures.paths))
        if batch.positions:
            batches.append(batch)
        progress("verifying", done, len(pictures.paths))
    kept = [position for batch in batches for position in batch.positions]
    return Evaluation(
        paths=tuple(pictures.paths[position] for position in kept),
        sha256=tuple(digest for batch in batches for digest in batch.sha256),
        truth=None if pictures.truth is None else pictures.truth[kept],
        answers=_joined_answers(batches),
        differences=_joined_differences(batches),
        reference=reference,
        unreadable=tuple(unreadable),
        seconds=_summed_seconds(batches),
    )


def replay(
    recorded: Reference, sessions: Mapping[str, Session], *, progress: Progress = silent
) -> Evaluation:
    """Run every session on the recorded inputs and compare with PyTorch's recorded logits."""
    count = len(recorded.inputs)
    jobs = [range(i, min(i + _BATCH, count)) for i in _starts(count)]

    def look(job: range) -> _Batch:
        rows = slice(job.start, job.stop)
        batch = _Batch(list(job), [], [], {}, {}, {})
        batch.answers[_RECORDED] = answers(recorded.logits[rows])
        _run(recorded.inputs[rows], sessions, recorded.logits[rows], None, batch)
        return batch

    batches: list[_Batch] = []
    for batch in in_order(look, jobs, threads=cores()):
        batches.append(batch)
        progress("replaying PyTorch's recorded answers", batch.positions[-1] + 1, count)
    joined, apart = _joined_answers(batches), _joined_differences(batches)
    return Evaluation((), (), None, joined, apart, _RECORDED, (), _summed_seconds(batches))


def _look(
    pictures: Pictures,
    job: range,
    preprocess: Preprocess,
    sessions: Mapping[str, Session],
    reference: str | None,
) -> _Batch:
    batch = _Batch([], [], [], {}, {}, {})
    inputs = np.empty((len(job), 3, *preprocess.input_size_px), np.float32)
    started = perf_counter()
    for position in job:
        path = pictures.paths[position]
        try:
            read_input(path, preprocess, out=inputs[len(batch.positions)])
        except InputError as error:
            batch.unreadable.append((path, str(error).removeprefix(f"{path}: ")))
        else:
            batch.positions.append(position)
            batch.sha256.append(hashlib.sha256(path.read_bytes()).hexdigest())
    batch.seconds[DECODE] = perf_counter() - started
    if batch.positions:
        inputs = inputs[: len(batch.positions)]
        truth = None if pictures.truth is None else pictures.truth[batch.positions]
        expected = None if reference is None else _timed(sessions, reference, inputs, batch)
        if reference is not None and expected is not None:
            batch.answers[reference] = answers(expected, truth)
            batch.differences[reference] = differences(expected, expected)
        others = {name: session for name, session in sessions.items() if name != reference}
        _run(inputs, others, expected, truth, batch)
    return batch


def _run(
    inputs: Logits,
    sessions: Mapping[str, Session],
    expected: Logits | None,
    truth: Indices | None,
    batch: _Batch,
) -> None:
    for name in sessions:
        logits = _timed(sessions, name, inputs, batch)
        batch.answers[name] = answers(logits, truth)
        if expected is not None:
            batch.differences[name] = differences(expected, logits)


def _timed(sessions: Mapping[str, Session], name: str, inputs: Logits, batch: _Batch) -> Logits:
    started = perf_counter()
    logits = sessions[name].run(inputs)
    batch.seconds[name] = perf_counter() - started
    return logits


def _check_readable(unreadable: list[tuple[Path, str]], total: int, *, last: bool) -> None:
    """Stop as soon as the limit is passed: a wrong folder should not take an hour to refuse."""
    if len(unreadable) <= UNREADABLE_SHARE * total and not (last and len(unreadable) == total):
        return
    path, reason = unreadable[-1]
    raise InputError(
        f"{len(unreadable)} of {total} pictures cannot be read, over "
        f"{UNREADABLE_SHARE:.0%}; the last one is {path}: {reason}"
    )


def _joined_answers(batches: Sequence[_Batch]) -> dict[str, Answers]:
    names = batches[0].answers
    return {name: join_answers([batch.answers[name] for batch in batches]) for name in names}


def _joined_differences(batches: Sequence[_Batch]) -> dict[str, Differences]:
    names = batches[0].differences
    return {
        name: join_differences([batch.differences[name] for batch in batches]) for name in names
    }


def _summed_seconds(batches: Sequence[_Batch]) -> dict[str, float]:
    names = batches[0].seconds
    return {name: sum(batch.seconds[name] for batch in batches) for name in names}


def _starts(count: int) -> range:
    return range(0, count, _BATCH)


def _has_class_folders(folder: Path) -> bool:
    return folder.is_dir() and any(
        entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir()
    )
