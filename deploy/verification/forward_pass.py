"""Runs several sessions over the same images in one pass: each image is decoded once.

Every thread takes a batch of images, decodes it and gives it to one session after the other. What
is kept of a batch is up to whoever asks for the pass: a few numbers per image, or whole logits.
Sessions on the CPU should have one thread each: whole batches are shared among the cores, which
leaves none of them waiting. Such batches are small where images are large.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images, check_readable
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.prefetch import in_order
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.images.spread import Open
from resdeploy.deploy.machine import cores
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.session import Session, images_at_once

DECODE = "decode"

_BATCH = 8

Kept = TypeVar("Kept")

Sessions = Mapping[str, Session]


@dataclass(frozen=True)
class Batch:
    """Some inputs and what every session answered.

    Attributes:
        positions: of the n inputs among all that were given.
        files: that they came from; none for inputs that were in memory.
        inputs: (n, 3, H, W) float32.
        logits: session's name -> (n, classes) float32.
        seconds: of decoding, and of every session.
    """

    positions: tuple[int, ...]
    files: tuple[Path, ...]
    inputs: Float32s
    logits: Mapping[str, Float32s]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class ForwardPass(Generic[Kept]):
    """What was kept of every batch, in order.

    Attributes:
        positions: of the images that could be read, among those given.
        unreadable: the others, each with the reason.
        seconds: work done for "decode" and every session, summed over threads.
    """

    kept: tuple[Kept, ...]
    positions: tuple[int, ...]
    unreadable: tuple[tuple[Path, str], ...]
    seconds: Mapping[str, float]


def forward_images(
    images: Images,
    preprocess: Preprocess,
    sessions: Mapping[str, Session],
    keep: Callable[[Batch], Kept],
    *,
    step: str,
    progress: Progress = silent,
    opened: Open[Sessions] | None = None,
) -> ForwardPass[Kept]:
    """Run every session on every image, and keep of each batch what `keep` makes of it.

    `keep` is called in several threads; `step` names the work for `progress`. Where workers have
    the images, they do it with sessions that they get by `opened`.

    Raises:
        InputError: more than 5 % of the images cannot be read (fewer are left out and listed).
    """
    total = len(images.paths)
    jobs = _jobs(total, sessions)

    def forward(opened: Sessions, number: int, files: Sequence[Path]) -> _Forwarded[Kept]:
        return _forward_files(jobs[number], files, preprocess, opened, keep)

    def forward_here(number: int) -> _Forwarded[Kept]:
        job = jobs[number]
        return forward(sessions, number, images.paths[job.start : job.stop])

    if images.workers is None or opened is None:
        batches = in_order(forward_here, range(len(jobs)), threads=cores())
    else:
        batches = images.workers(opened, forward, jobs)
    found: list[_Forwarded[Kept]] = []
    unreadable: list[tuple[Path, str]] = []
    for job, batch in zip(jobs, batches, strict=True):
        found.append(batch)
        unreadable += [(images.paths[position], reason) for position, reason in batch.unreadable]
        check_readable(unreadable, total)
        progress(step, job.stop, total)
    return _joined(found, unreadable)


def forward_inputs(
    inputs: Float32s,
    sessions: Mapping[str, Session],
    keep: Callable[[Batch], Kept],
    *,
    step: str,
    progress: Progress = silent,
) -> ForwardPass[Kept]:
    """The same for inputs (N, 3, H, W) float32 that are in memory already."""

    def forward(job: range) -> _Forwarded[Kept]:
        batch = _run(tuple(job), (), inputs[job.start : job.stop], sessions, {})
        return _Forwarded((keep(batch),), batch.positions, (), batch.seconds)

    found: list[_Forwarded[Kept]] = []
    for batch in in_order(forward, _jobs(len(inputs), sessions), threads=cores()):
        found.append(batch)
        progress(step, batch.positions[-1] + 1, len(inputs))
    return _joined(found, ())


@dataclass(frozen=True)
class _Forwarded(Generic[Kept]):
    """One batch; `kept` is empty where none of its images could be read."""

    kept: tuple[Kept, ...]
    positions: tuple[int, ...]
    unreadable: tuple[tuple[int, str], ...]
    seconds: Mapping[str, float]


def _forward_files(
    job: range,
    files: Sequence[Path],
    preprocess: Preprocess,
    sessions: Mapping[str, Session],
    keep: Callable[[Batch], Kept],
) -> _Forwarded[Kept]:
    inputs = np.empty((len(job), 3, *preprocess.input_size_px), np.float32)
    positions: list[int] = []
    unreadable: list[tuple[int, str]] = []
    started = perf_counter()
    for position, path in zip(job, files, strict=True):
        try:
            read_input(path, preprocess, out=inputs[len(positions)])
        except InputError as error:
            unreadable.append((position, str(error).removeprefix(f"{path}: ")))
        else:
            positions.append(position)
    decoding = {DECODE: perf_counter() - started}
    if not positions:
        return _Forwarded((), (), tuple(unreadable), decoding)
    read = tuple(files[position - job.start] for position in positions)
    batch = _run(tuple(positions), read, inputs[: len(positions)], sessions, decoding)
    return _Forwarded((keep(batch),), batch.positions, tuple(unreadable), batch.seconds)


def _run(
    positions: tuple[int, ...],
    files: tuple[Path, ...],
    inputs: Float32s,
    sessions: Mapping[str, Session],
    seconds: Mapping[str, float],
) -> Batch:
    logits: dict[str, Float32s] = {}
    spent = dict(seconds)
    for name, session in sessions.items():
        started = perf_counter()
        logits[name] = session.run(inputs)
        spent[name] = perf_counter() - started
    return Batch(positions, files, inputs, logits, spent)


def _joined(
    found: Sequence[_Forwarded[Kept]], unreadable: Sequence[tuple[Path, str]]
) -> ForwardPass[Kept]:
    names: Iterable[str] = dict.fromkeys(name for batch in found for name in batch.seconds)
    return ForwardPass(
        kept=tuple(kept for batch in found for kept in batch.kept),
        positions=tuple(position for batch in found for position in batch.positions),
        unreadable=tuple(unreadable),
        seconds={name: sum(batch.seconds.get(name, 0.0) for batch in found) for name in names},
    )


def _jobs(count: int, sessions: Sessions) -> list[range]:
    batch = max((_batch(session) for session in sessions.values()), default=_BATCH)
    return [range(start, min(start + batch, count)) for start in range(0, count, batch)]


def _batch(session: Session) -> int:
    """Images that a session runs best; PyTorch, more threads and a GPU want more to do."""
    alone = session.backend == "ort-cpu" and session.threads == 1
    return images_at_once(session.input) if alone else _BATCH
