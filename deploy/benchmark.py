"""`bench`: how fast a bundle answers, per precision, backend and batch, and where the time goes.

    file ─decode─▶ RGB ─resize, crop, normalise─▶ tensor ─inference─▶ logits ─softmax─▶ classes

The session alone is timed at every batch; one picture from file to classes at batch 1. Pictures
are those given, else a synthetic photograph of 640x480 pixels: the result says which.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from resdeploy.deploy.bench_report import BenchReport, Timed
from resdeploy.deploy.candidates import precisions_of
from resdeploy.deploy.conditions import conditions
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.machine import peak_memory_bytes
from resdeploy.deploy.output import Progress, silent
from resdeploy.deploy.session import Model, Session, open_model, open_session, sizes_of
from resdeploy.deploy.session_memory import measure_peak_bytes
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.stages import read_encoded, time_stages
from resdeploy.deploy.timing import time_in_turns


@dataclass(frozen=True)
class _Opened:
    precision: Precision
    session: Session
    peak_memory_bytes: int | None

    @property
    def name(self) -> str:
        return f"{self.precision}@{_attribute(self.session, 'backend')}"


def bench(
    bundle: str | Path,
    *,
    precisions: Sequence[Precision] = (),
    backends: Sequence[Backend | Literal["auto"]] = ("auto",),
    batches: Sequence[int] = (1, 8),
    seconds: float = 3.0,
    threads: int | None = None,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Time a bundle's precisions on this machine, in turns.

    Args:
        precisions: default all that the bundle holds; the variant is what the backend runs best.
        batches: pictures per run.
        seconds: of timed runs for every combination of precision, backend and batch.
        threads: CPU threads of one run; default all cores.
        data: picture files for the stages; default a synthetic one.

    Raises:
        InputError: a batch or a time below 1 run, or no pictures there.
        BackendError: a backend is not usable on this machine.
    """
    if not batches or min(batches) < 1 or not seconds > 0:
        raise InputError(f"batches {list(batches)} and {seconds} s: both must be above 0")
    model = open_model(bundle)
    encoded, pictures = read_encoded(data)
    machine = conditions(threads)
    with ExitStack() as stack:
        held = precisions_of(model, precisions)
        opened = _open_all(model, held, backends, threads, stack, progress)
        timed = _time_sessions(model, opened, tuple(dict.fromkeys(batches)), seconds, progress)
        sessions = {candidate.name: candidate.session for candidate in opened}
        stages, end_to_end = time_stages(
            model.manifest, sessions, encoded, seconds=seconds / 2, progress=progress
        )
    return BenchReport(
        bundle=Path(bundle),
        manifest=model.manifest,
        results=timed,
        pictures=pictures,
        stages=stages,
        end_to_end=end_to_end,
        machine=machine,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _open_all(
    model: Model,
    precisions: Sequence[Precision],
    backends: Sequence[Backend | Literal["auto"]],
    threads: int | None,
    stack: ExitStack,
    progress: Progress,
) -> list[_Opened]:
    found: dict[str, _Opened] = {}
    total = len(backends) * len(precisions)
    for done, (asked, precision) in enumerate(product(backends, precisions), start=1):
        session = open_session(model, precision=precision, backend=asked, threads=threads)
        stack.enter_context(session)
        session.run(np.zeros((1, *sizes_of(session.input)), np.float32))
        backend = _attribute(session, "backend")
        if f"{precision}@{backend}" not in found:
            peak = measure_peak_bytes(model.path, precision, backend, threads)
            opened = _Opened(precision, session, peak)
            found[opened.name] = opened
        progress("opening, measuring memory", done, total)
    return list(found.values())


def _time_sessions(
    model: Model,
    opened: Sequence[_Opened],
    batches: Sequence[int],
    seconds: float,
    progress: Progress,
) -> tuple[Timed, ...]:
    shape = sizes_of(model.manifest.input)
    random = np.random.default_rng(0)
    inputs = {n: random.standard_normal((n, *shape)).astype(np.float32) for n in batches}
    places = [(candidate, batch) for candidate in opened for batch in batches]
    samples = time_in_turns(
        [_runner(candidate.session, inputs[batch]) for candidate, batch in places],
        seconds=seconds,
        progress=lambda done, total: progress("timing", done, total),
    )
    return tuple(
        Timed(
            precision=candidate.precision,
            variant=_attribute(candidate.session, "variant"),
            backend=_attribute(candidate.session, "backend"),
            batch=batch,
            samples=found,
            peak_memory_bytes=candidate.peak_memory_bytes,
        )
        for (candidate, batch), found in zip(places, samples, strict=True)
    )


def _runner(session: Session, inputs: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: session.run(inputs)


def _attribute(session: Session, name: str) -> str:
    return str(getattr(session, name, "unknown"))
