"""The machine that `auto` chooses on: what could work there, how it is tried, what it is."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np

from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.cuda import cuda_problem, device
from resdeploy.deploy.inference.backends import open_backend
from resdeploy.deploy.machine import cores, cpu_flags, cpu_name, power_mode
from resdeploy.deploy.metrics.timing import time_in_turns
from resdeploy.deploy.optional import installed_versions
from resdeploy.deploy.session import Session, sizes_of
from resdeploy.deploy.specs import GPU_BACKENDS, Backend, Precision

_LIBRARIES = ("resdeploy", "onnxruntime", "tensorrt", "tensorrt_rtx")
_TIMED_S = 0.5
_ROUNDS = 5


@dataclass(frozen=True)
class Host:
    """A machine to choose on: what could work there, and how it is tried.

    Attributes:
        backends: those that could work, "ort-cpu" first.
        facts: everything but the model that the outcome depends on.
        open: opens a session.
        measure: the median milliseconds of one image in each session.
    """

    backends: tuple[Backend, ...]
    facts: tuple[str, ...]
    open: Callable[[Model, Precision, Backend], Session]
    measure: Callable[[Collection[Session], Reference | None], list[float]]


def this_host(threads: int | None = None) -> Host:
    """This machine, with `threads` CPU threads for a run; default all cores."""
    gpu = device()
    return Host(
        backends=("ort-cpu", *(GPU_BACKENDS if cuda_problem() is None else ())),
        facts=(
            *(f"{name} {number}" for name, number in installed_versions(_LIBRARIES).items()),
            cpu_name(),
            *cpu_flags(),
            f"{threads or cores()} threads of {cores()}",
            gpu.name if gpu else "",
            gpu.compute_capability if gpu else "",
            power_mode() or "",
        ),
        open=partial(open_backend, threads=threads),
        measure=_milliseconds,
    )


def _milliseconds(sessions: Collection[Session], reference: Reference | None) -> list[float]:
    """Median time of one image in each session, host to host."""

    def runner(session: Session) -> Callable[[], object]:
        image = np.zeros((1, *sizes_of(session.input)), np.float32)
        if reference is not None:
            image = np.ascontiguousarray(reference.inputs[:1])
        return partial(session.run, image)

    samples = time_in_turns(
        [runner(session) for session in sessions], seconds=_TIMED_S, rounds=_ROUNDS
    )
    return [round(found.percentile_ms(50), 4) for found in samples]
