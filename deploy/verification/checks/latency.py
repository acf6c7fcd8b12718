"""Check of the speed: not slower than the benchmark that was kept in the bundle, or than a release.

The variants run in turns on one image (`metrics.timing`): drift of the machine affects all alike.
The ratio of the medians, now to then, has an interval from resampled rounds. Times of another
processor or number of threads are not compared. Another release runs in the same turns, so that
nothing of the machine but its noise is in the ratio.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from resdeploy.deploy.bundle.bundle import REPORTS
from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.defaults import BENCH_SECONDS
from resdeploy.deploy.files import read_sealed
from resdeploy.deploy.inference.open import open_session
from resdeploy.deploy.machine import cores, cpu_name
from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.metrics.paired_score import beyond_p
from resdeploy.deploy.metrics.timing import paired_ratio_interval, ratio_interval, time_in_turns
from resdeploy.deploy.session import sizes_of
from resdeploy.deploy.specs import Backend, Precision
from resdeploy.deploy.verification.candidates import Candidate
from resdeploy.deploy.verification.checks.gate import EVERY_VARIANT, Gate, Outcome, not_checked

NAME = "latency"
_FILE = "bench.json"

SavedTimes = Mapping[tuple[str, str], Sequence[float]]


def latency_gates(
    model: Model,
    candidates: Sequence[Candidate],
    max_slower: float,
    *,
    seconds: float = BENCH_SECONDS,
) -> list[Gate]:
    """Time every candidate that the kept benchmark timed, and compare; `max_slower` in percent."""
    saved = read_saved_times(model)
    if isinstance(saved, str):
        return [not_checked(NAME, EVERY_VARIANT, saved)]
    timed = [c for c in candidates if (c.variant, c.backend) in saved]
    if not timed:
        names = ", ".join(c.name for c in candidates)
        return [not_checked(NAME, EVERY_VARIANT, f"{_FILE} has no times of {names}")]
    image = np.zeros((1, *sizes_of(model.manifest.input)), np.float32)
    with ExitStack() as stack:
        runs = []
        for candidate in timed:
            session = open_session(model, precision=candidate.precision, backend=candidate.backend)
            runs.append(partial(stack.enter_context(session).run, image))
        samples = time_in_turns(runs, seconds=seconds)
    return [
        latency_gate(c.name, found.medians_ms, saved[c.variant, c.backend], max_slower)
        for c, found in zip(timed, samples, strict=True)
    ]


def latency_gates_against(
    model: Model,
    candidates: Sequence[Candidate],
    other: Model,
    max_slower: float,
    *,
    other_backend: Backend | None = None,
    seconds: float = BENCH_SECONDS,
) -> list[Gate]:
    """Time every candidate and the same variant of another release in turns, and compare.

    The other runs on `other_backend`, by default on that of the candidate.
    """
    pairs = [(c, _same_precision(c, other)) for c in candidates]
    timed = [(c, precision) for c, precision in pairs if precision is not None]
    if not timed:
        why = f"{other.path.name} has none of {', '.join(c.variant for c in candidates)}"
        return [not_checked(NAME, EVERY_VARIANT, why)]
    with ExitStack() as stack:
        runs = []
        for candidate, precision in timed:
            backends = candidate.backend, other_backend or candidate.backend
            asked = zip((model, other), (candidate.precision, precision), backends, strict=True)
            for one, chosen, backend in asked:
                session = open_session(one, precision=chosen, backend=backend)
                image = np.zeros((1, *sizes_of(one.manifest.input)), np.float32)
                runs.append(partial(stack.enter_context(session).run, image))
        samples = time_in_turns(runs, seconds=seconds)
    medians = [found.medians_ms for found in samples]
    return [
        latency_gate(c.name, now, then, max_slower, than=other.path.name)
        for (c, _), now, then in zip(timed, medians[::2], medians[1::2], strict=True)
    ]


def _same_precision(candidate: Candidate, other: Model) -> Precision | None:
    """The precision of the other release to time a candidate against; its only one, or None."""
    held = other.manifest.variants
    if len(held) == 1 or candidate.variant not in held:
        return other.precision if len(held) == 1 else None
    return candidate.precision


def latency_gate(
    variant: str,
    now_ms: Sequence[float],
    then_ms: Sequence[float],
    limit: float,
    *,
    than: str | None = None,
) -> Gate:
    """Medians of rounds, now and then, in milliseconds; how much slower in percent.

    `than` names a release that ran in the same rounds; None for the saved benchmark.
    """
    ratio, found = (ratio_interval if than is None else paired_ratio_interval)(now_ms, then_ms)
    slower = 100 * (ratio - 1)
    interval = Interval(min(slower, 100 * (found.low - 1)), max(slower, 100 * (found.high - 1)))
    verdict: Outcome = "fail"
    if interval.low <= limit:
        verdict = "pass" if interval.high <= limit else "inconclusive"
    change = f"{abs(slower):.0f} % {'slower' if slower > 0 else 'faster'}"
    what = f"{change} than {than or 'the saved benchmark'}"
    times = f"{np.median(now_ms):.1f} ms now, {np.median(then_ms):.1f} ms then"
    if than is not None:
        times = f"{np.median(now_ms):.1f} ms against {np.median(then_ms):.1f} ms, in turns"
    advice = "; too noisy to decide: run again with nothing else running"
    return Gate(
        name=NAME,
        variant=variant,
        verdict=verdict,
        sentence=(
            f"{what} (95 % interval {interval.low:+.0f} to {interval.high:+.0f} %, {times}), "
            f"limit: {limit:g} % slower{advice if verdict == 'inconclusive' else ''}"
        ),
        value=slower,
        interval=interval,
        limit=limit,
        brief=f"{variant} is {what} (limit {limit:g} % slower)",
        p=beyond_p(slower, interval, limit),
    )


def read_saved_times(model: Model) -> SavedTimes | str:
    """(variant, backend) to medians of rounds at batch 1, or why there is nothing to compare."""
    path = model.path / REPORTS / _FILE
    try:
        content: Any = read_sealed(path)
        machine = content["machine"]
        then = (str(machine["cpu"]), int(machine["threads"]))
        times = {
            (str(r["variant"]), str(r["backend"])): [float(ms) for ms in r["round_medians_ms"]]
            for r in content["results"]
            if r["batch"] == 1
        }
    except (OSError, KeyError, TypeError, ValueError):
        return f"no times in {path}: run resdeploy bench {model.path} on this machine first"
    here = (cpu_name(), cores())
    if then != here:
        return (
            f"the saved times are of {then[0]} with {then[1]} threads, this is {here[0]} with "
            f"{here[1]}: run resdeploy bench {model.path} here"
        )
    return times
