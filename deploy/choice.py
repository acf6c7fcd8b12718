"""`auto`: the fastest backend and precision on this machine that gives the reference's answers.

Every backend that could work here is opened, warmed up against the bundle's reference and timed on
one picture; the evidence is kept in `engines/auto.json`, under a key of everything the outcome
depends on (library versions, CPU, GPU, power mode, graphs, engines), so that the trial is made once
per machine. A machine without a GPU has one backend and needs no trial.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from resdeploy.deploy.bundle import replaced_file
from resdeploy.deploy.cuda import cuda_problem, device
from resdeploy.deploy.engine_store import engines_folder
from resdeploy.deploy.errors import BackendError, InputError, ResdeployError
from resdeploy.deploy.machine import cpu_name, power_mode
from resdeploy.deploy.recording import Reference
from resdeploy.deploy.session import Model, Session, open_session, sizes_of
from resdeploy.deploy.specs import BACKENDS, Backend, Precision
from resdeploy.deploy.warm_up import reference_pictures, warm_up

MEMORY = "auto.json"

_DISTRIBUTIONS = (
    "resdeploy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
)
_TIMED_S = 0.5
_LEAST_RUNS = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One backend with one precision: its median time for one picture, or why it is out."""

    backend: Backend
    precision: Precision
    milliseconds: float | None
    evidence: str


@dataclass(frozen=True)
class Choice:
    """The fastest of the trials that passed; without a GPU there is nothing to try."""

    backend: Backend
    precision: Precision
    trials: tuple[Trial, ...]
    remembered: bool = False

    def __str__(self) -> str:
        if not self.trials:
            return f"{self.backend} {self.precision}: {cuda_problem()}"
        tried = "; ".join(
            f"{trial.backend} {trial.precision} "
            + (f"{trial.milliseconds:.2f} ms" if trial.milliseconds is not None else "out")
            + f" ({trial.evidence})"
            for trial in self.trials
        )
        how = "chosen earlier on this machine" if self.remembered else "chosen"
        return f"{self.backend} {self.precision} {how}: {tried}"


def choose(model: Model, precisions: Sequence[Precision]) -> Choice:
    """The fastest backend and precision here, of the precisions given.

    Raises:
        BackendError: none gives the reference's answers.
    """
    if cuda_problem() is not None:
        return Choice("ort-cpu", precisions[0], ())
    key = _key(model, precisions)
    if (remembered := _remembered(model, key)) is not None:
        return remembered
    reference = reference_pictures(model)
    trials = tuple(
        _tried(model, precision, backend, reference)
        for precision in precisions
        for backend in _backends(model, precision)
    )
    passed = [(t.milliseconds, t) for t in trials if t.milliseconds is not None]
    if not passed:
        raise BackendError(
            f"{model.path}: no backend here gives the reference's answers: "
            + "; ".join(f"{t.backend} {t.precision}: {t.evidence}" for t in trials)
        )
    best = min(passed, key=lambda timed: timed[0])[1]
    choice = Choice(best.backend, best.precision, trials)
    _remember(model, key, choice)
    _log.info("%s: auto: %s", model.path, choice)
    return choice


def _backends(model: Model, precision: Precision) -> Iterator[Backend]:
    """Backends worth a trial; those that would build an engine first are left to `build`."""
    folder = engines_folder(model)
    for backend in BACKENDS:
        if backend in ("tensorrt", "tensorrt-rtx"):
            if any(folder.glob(f"{precision}-{backend}-[0-9]*.engine")):
                yield backend
        elif backend != "ort-tensorrt" or (folder / "ort-tensorrt").is_dir():
            yield backend


def _tried(
    model: Model, precision: Precision, backend: Backend, reference: Reference | None
) -> Trial:
    try:
        with open_session(model, precision=precision, backend=backend) as session:
            outcome = warm_up(session, precision, reference)
            if not outcome.passed:
                return Trial(backend, precision, None, f"other logits: {outcome}")
            return Trial(backend, precision, _milliseconds(session, reference), str(outcome))
    except ResdeployError as error:
        return Trial(backend, precision, None, str(error))


def _milliseconds(session: Session, reference: Reference | None) -> float:
    """Median time of one picture, host to host."""
    picture = np.zeros((1, *sizes_of(session.input)), np.float32)
    if reference is not None:
        picture = np.ascontiguousarray(reference.inputs[:1])
    session.run(picture)
    times: list[float] = []
    end = time.perf_counter() + _TIMED_S
    while time.perf_counter() < end or len(times) < _LEAST_RUNS:
        start = time.perf_counter()
        session.run(picture)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)) * 1e3, 4)


def _key(model: Model, precisions: Sequence[Precision]) -> str:
    gpu = device()
    facts = [
        *precisions,
        *(f"{name} {_version(name)}" for name in _DISTRIBUTIONS),
        cpu_name(),
        gpu.name if gpu else "",
        gpu.compute_capability if gpu else "",
        power_mode() or "",
        *sorted(file.sha256 for file in model.manifest.variants.values()),
        *sorted(
            f"{path.name} {path.stat().st_mtime_ns}"
            for path in engines_folder(model).glob("*.engine")
        ),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _remembered(model: Model, key: str) -> Choice | None:
    try:
        fields = _memory(model)[key]
        trials = tuple(Trial(**trial) for trial in fields.pop("trials"))
        return Choice(**{**fields, "trials": trials, "remembered": True})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(model: Model, key: str, choice: Choice) -> None:
    try:
        memory = _memory(model)
    except (OSError, ValueError):
        memory = {}
    path = engines_folder(model) / MEMORY
    try:
        path.parent.mkdir(exist_ok=True)
        with replaced_file(path) as temporary:
            temporary.write_text(json.dumps({**memory, key: asdict(choice)}, indent=2) + "\n")
    except (OSError, InputError) as error:
        # a bundle on a read-only disk is tried anew every time
        _log.info("%s: choice not kept: %s", path, error)


def _memory(model: Model) -> dict[str, Any]:
    fields = json.loads((engines_folder(model) / MEMORY).read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return fields


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"
