"""`bench`: how fast a bundle answers by precision, backend and batch, and where the time goes.

    file ─decode─▶ RGB ─resize, crop, normalise─▶ tensor ─inference─▶ logits ─softmax─▶ classes

The session alone is timed at every batch; one image from file to classes at batch 1. Without
images, a synthetic photograph of 640x480 pixels is used; the result says which.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.benchmark.environment import environment
from resdeploy.deploy.benchmark.memory import measure_peak_bytes
from resdeploy.deploy.benchmark.power import measure_power
from resdeploy.deploy.benchmark.report import BenchReport, Timed
from resdeploy.deploy.benchmark.stages import read_encoded, time_stages
from resdeploy.deploy.bundle.model import Model, open_model, precisions_of
from resdeploy.deploy.defaults import BENCH_BATCHES, BENCH_SECONDS
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.machine import peak_memory_bytes
from resdeploy.deploy.metrics.timing import time_in_turns
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.session import Session, gives_maps, sizes_of
from resdeploy.deploy.specs import Backend, Precision


@dataclass(frozen=True)
class _Opened:
    precision: Precision
    session: Session
    peak_memory_bytes: int | None


def bench(
    bundle: StrPath,
    *,
    precisions: Sequence[Precision] = (),
    backends: Sequence[Backend | Literal["auto"]] = ("auto",),
    batches: Sequence[int] = BENCH_BATCHES,
    seconds: float = BENCH_SECONDS,
    threads: int | None = None,
    data: StrPath | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Time a bundle's precisions (default all) on this machine, in turns.

    Every combination of precision, backend and batch runs for about `seconds`, on the variant that
    the backend runs best, with `threads` CPU threads (default all cores). `data` names images for
    the stages (default a synthetic one). Raises InputError if batches or seconds are not above 0
    or there are no images, BackendError if a backend is not usable here.
    """
    if not batches or min(batches) < 1 or not seconds > 0:
        raise InputError(f"batches {list(batches)} and {seconds} s: both must be above 0")
    model = open_model(bundle)
    encoded, images = read_encoded(data)
    machine = environment(threads)  # before anything is timed
    with ExitStack() as stack:
        held = precisions_of(model, precisions)
        opened = _open_all(model, held, backends, threads, stack, progress)
        timed = _time_sessions(model, opened.values(), batches, seconds, progress)
        named = {name: one.session for name, one in opened.items()}
        stages, whole = time_stages(model.manifest, named, encoded, seconds / 2, progress)
    return BenchReport(
        bundle=Path(bundle),
        manifest=model.manifest,
        results=timed,
        images=images,
        stages=stages,
        end_to_end=whole,
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
) -> dict[str, _Opened]:
    found: dict[str, _Opened] = {}
    total = len(backends) * len(precisions)
    for done, (asked, precision) in enumerate(product(backends, precisions), start=1):
        session = open_session(model, precision=precision, backend=asked, threads=threads)
        stack.enter_context(session)
        session.run(np.zeros((1, *sizes_of(session.input)), np.float32))
        backend = session.backend
        name = f"{session.variant}@{backend}"
        if name not in found:
            peak = measure_peak_bytes(model.path, precision, backend, threads)
            found[name] = _Opened(precision, session, peak)
        progress("opening, measuring memory", done, total)
    return found


def _time_sessions(
    model: Model,
    opened: Iterable[_Opened],
    batches: Sequence[int],
    seconds: float,
    progress: Progress,
) -> tuple[Timed, ...]:
    shape = sizes_of(model.manifest.input)
    random = np.random.default_rng(0)
    inputs = {n: random.standard_normal((n, *shape)).astype(np.float32) for n in batches}
    places = [(candidate, batch) for candidate in opened for batch in inputs]
    runners = [_runner(candidate.session, inputs[batch]) for candidate, batch in places]
    samples = time_in_turns(
        runners,
        seconds=seconds,
        progress=lambda done, total: progress("timing", done, total),
    )
    return tuple(
        Timed(
            precision=candidate.precision,
            variant=candidate.session.variant,
            backend=candidate.session.backend,
            batch=batch,
            samples=found,
            peak_memory_bytes=candidate.peak_memory_bytes,
            power=measure_power(run, batch, seconds=seconds),
        )
        for (candidate, batch), found, run in zip(places, samples, runners, strict=True)
    )


def _runner(session: Session, inputs: Float32s) -> Callable[[], object]:
    if gives_maps(session):
        return lambda: session.run_all(inputs)
    return lambda: session.run(inputs)
