"""`auto`: the fastest backend and precision on this machine that gives the reference's answers.

Everything that could work here is opened, warmed up against the bundle's reference and timed on
one image; of what comes within 5 % of the fastest, the most precise is taken. The evidence is
kept in `engines/auto.json`, under a key of everything the outcome depends on (library versions,
CPU, threads, GPU, power mode, graphs, reference, engines), so that the trial is made once per
machine. Where there is only one thing to choose, as fp32 without a GPU, there is no trial; where
there is no reference, only the most precise is trusted.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from resdeploy.deploy.bundle.bundle import REFERENCE
from resdeploy.deploy.bundle.model import Model, precisions_of
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.engine.sidecar import read_sidecar
from resdeploy.deploy.engine.store import engines_folder
from resdeploy.deploy.errors import BackendError, BundleError, InputError, ResdeployError
from resdeploy.deploy.files import read_sealed, replaced_file, sealed
from resdeploy.deploy.inference.host import Host, this_host
from resdeploy.deploy.inference.self_check import first_references, has_reference, self_check
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import PRECISIONS, Backend, Precision

MEMORY = "auto.json"

_JUDGED_IMAGES = 32
# precision is given up for a gain in speed, not for the scatter of its measurement
_AS_FAST = 1.05

_log = logging.getLogger(__name__)

_Way = tuple[Backend, Precision]


@dataclass(frozen=True)
class Trial:
    """One backend with one precision: its median time for one image, or why it is out."""

    backend: Backend
    precision: Precision
    milliseconds: float | None
    evidence: str

    @property
    def way(self) -> _Way:
        """What was tried."""
        return self.backend, self.precision


@dataclass(frozen=True)
class AutoChoice:
    """What is best here, and every trial that says so; none where there was nothing to choose."""

    backend: Backend
    precision: Precision
    trials: tuple[Trial, ...]
    remark: str = ""
    remembered: bool = False

    def __str__(self) -> str:
        """One line, e.g. "int8 on ort-cpu, 5.4 ms an image (fp32 7.5 ms); passes …"."""
        best = next((t for t in self.trials if t.way == (self.backend, self.precision)), None)
        text = f"{self.precision} on {self.backend}"
        if best is None or best.milliseconds is None:
            text += ", the only choice here"
        else:
            others = [self._beside(trial, best.milliseconds) for trial in self.trials]
            beaten = ", ".join(text for text in others if text)
            text += f", {best.milliseconds:.2f} ms an image"
            text += f" ({beaten})" if beaten else ""
            text += f"; passes the check: {best.evidence}"
        text += f"; {self.remark}" if self.remark else ""
        return text + ("; measured earlier on this machine" if self.remembered else "")

    def _beside(self, trial: Trial, best_ms: float) -> str:
        """What a trial that was not chosen came to."""
        if trial.way == (self.backend, self.precision):
            return ""
        several = len({t.backend for t in self.trials}) > 1
        name = f"{trial.precision} on {trial.backend}" if several else str(trial.precision)
        if trial.milliseconds is None:
            return f"{name} ruled out: {trial.evidence}"
        less_precise = PRECISIONS.index(trial.precision) > PRECISIONS.index(self.precision)
        if trial.milliseconds < best_ms:
            verdict = ": not 5 % faster"
        else:
            verdict = ": no faster" if less_precise else ""
        return f"{name} {trial.milliseconds:.2f} ms{verdict}"


def choose(
    model: Model,
    precisions: Sequence[Precision] = (),
    *,
    backend: Backend | Literal["auto"] = "auto",
    threads: int | None = None,
    host: Host | None = None,
) -> AutoChoice:
    """The fastest backend and precision here that give the reference's answers.

    Args:
        model: what `open_model` gives.
        precisions: those that may be chosen; default all that the model holds.
        backend: "auto", or the only one that may be chosen.
        threads: CPU threads of one run; default all cores.
        host: the machine to choose on; default this one with these threads.

    Raises:
        BackendError: none gives the reference's answers.
        BundleError: a file of the bundle was altered.
    """
    if model.is_engine:
        flavor = read_sidecar(model.path).machine.flavor
        return AutoChoice(flavor if backend == "auto" else backend, model.precision, ())
    host = host or this_host(threads)
    backends = host.backends if backend == "auto" else (backend,)
    asked = backend != "auto"
    ways, remark = _ways(model, precisions or precisions_of(model, ()), backends, asked=asked)
    if len(ways) == 1:
        return AutoChoice(*ways[0], (), remark)
    key = _key(model, ways, host)
    if (remembered := _remembered(model, key)) is not None:
        return remembered
    trials = _all_tried(model, ways, host)
    choice = AutoChoice(*_best(model, trials).way, tuple(trials), remark)
    _remember(model, key, choice)
    _log.info("%s: auto: %s", model.path, choice)
    return choice


def _all_tried(model: Model, ways: Sequence[_Way], host: Host) -> list[Trial]:
    reference = first_references(model, most=_JUDGED_IMAGES)
    trials: list[Trial] = []
    for name in dict.fromkeys(backend for backend, _ in ways):
        tried = [precision for backend, precision in ways if backend == name]
        trials += _tried(model, name, tried, host, reference)
    return trials


def _ways(
    model: Model, precisions: Sequence[Precision], backends: Sequence[Backend], *, asked: bool
) -> tuple[list[_Way], str]:
    """What is worth a trial, at least one way, and what kept others from it."""
    remark = ""
    if len(precisions) > 1 and not has_reference(model):
        precisions = precisions[:1]
        remark = f"without {REFERENCE}, other precisions cannot be checked"
    ways = [
        (name, precision)
        for name in backends
        for precision in precisions
        if _is_ready(model, precision, name, asked=asked)
    ]
    return ways or [(backends[0], precisions[0])], remark


def _is_ready(model: Model, precision: Precision, backend: Backend, *, asked: bool) -> bool:
    """Whether nothing must be built first, which is `build`'s business, unless it was asked for."""
    folder = engines_folder(model)
    if backend in ("tensorrt", "tensorrt-rtx"):
        return asked or any(folder.glob(f"{precision}-{backend}-[0-9]*.engine"))
    if model.variant_for(precision, backend) not in model.manifest.variants:
        return False
    return asked or backend != "ort-tensorrt" or (folder / backend).is_dir()


def _best(model: Model, trials: Sequence[Trial]) -> Trial:
    """The most precise of those that come within a hair of the fastest."""
    passed = [(trial.milliseconds, trial) for trial in trials if trial.milliseconds is not None]
    if not passed:
        reasons: dict[str, list[str]] = {}
        for trial in trials:
            reasons.setdefault(trial.evidence, []).append(f"{trial.backend} {trial.precision}")
        if len(reasons) == 1:
            raise BackendError(f"{model.path}: {trials[0].evidence}")
        raise BackendError(
            f"{model.path}: no backend here gives the reference's answers: "
            + "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        )
    limit = _AS_FAST * min(milliseconds for milliseconds, _ in passed)
    fast = [(PRECISIONS.index(t.precision), ms, t) for ms, t in passed if ms <= limit]
    return min(fast, key=lambda found: found[:2])[2]


def _tried(
    model: Model,
    backend: Backend,
    precisions: Sequence[Precision],
    host: Host,
    reference: Reference | None,
) -> list[Trial]:
    """A trial of each precision; those of one backend are open together and timed in turns."""
    evidence: dict[Precision, str] = {}
    working: dict[Precision, Session] = {}
    with ExitStack() as stack:
        for precision in precisions:
            try:
                session = stack.enter_context(host.open(model, precision, backend))
                outcome = self_check(session, precision, reference)
            except (BundleError, InputError):
                raise  # of the bundle or the request, not of the backend
            except ResdeployError as error:
                evidence[precision] = str(error)
                continue
            if outcome.passed:
                working[precision] = session
            evidence[precision] = f"{'' if outcome.passed else 'its logits differ: '}{outcome}"
        times = dict(zip(working, host.measure(working.values(), reference), strict=True))
    return [Trial(backend, p, times.get(p), evidence[p]) for p in precisions]


def _key(model: Model, ways: Sequence[_Way], host: Host) -> str:
    folder = engines_folder(model)
    files = (model.path / REFERENCE, *folder.glob("*.engine"))
    facts = [
        *map(" ".join, ways),
        *host.facts,
        *sorted(file.sha256 for file in model.manifest.variants.values()),
        *sorted(f"{path.name} {path.stat().st_mtime_ns}" for path in files if path.is_file()),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _remembered(model: Model, key: str) -> AutoChoice | None:
    try:
        fields = _memory(model)[key]
        trials = tuple(Trial(**trial) for trial in fields.pop("trials"))
        return AutoChoice(**{**fields, "trials": trials, "remembered": True})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(model: Model, key: str, choice: AutoChoice) -> None:
    try:
        memory = _memory(model)
    except (OSError, ValueError):
        memory = {}
    path = engines_folder(model) / MEMORY
    try:
        path.parent.mkdir(exist_ok=True)
        text = json.dumps(sealed({**memory, key: asdict(choice)}), indent=2) + "\n"
        with replaced_file(path) as temporary:
            temporary.write_text(text)
    except (OSError, InputError) as error:
        # a bundle on a read-only disk is tried anew every time
        _log.info("%s: choice not kept: %s", path, error)


def _memory(model: Model) -> dict[str, Any]:
    return read_sealed(engines_folder(model) / MEMORY)
