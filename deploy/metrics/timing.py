"""Times candidates in turns, each after a warm-up, and gives intervals of the medians.

* Warm-up ends when the medians of two consecutive windows of runs agree within 5 %.
* Rounds: every candidate runs for a slice of a round, in an order that rotates, so that drift of
  the machine (heat, clock, other programs) affects all alike.
* Runs of one round resemble each other more than runs of different rounds. So intervals come from
  resampling rounds, not runs (a cluster bootstrap).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from resdeploy.deploy.arrays import Float64s
from resdeploy.deploy.metrics.intervals import Interval

_WINDOW = 5
_AGREE = 0.05
_RESAMPLES = 1000

Run = Callable[[], object]


@dataclass(frozen=True)
class Samples:
    """Milliseconds of every run, grouped by round; `steady`: the warm-up ended by agreement."""

    rounds: tuple[tuple[float, ...], ...]
    warm_up_runs: int
    steady: bool

    @property
    def runs(self) -> list[float]:
        """All runs in the order they happened."""
        return [run for runs in self.rounds for run in runs]

    @property
    def medians_ms(self) -> list[float]:
        """The median of every round."""
        return [float(np.median(runs)) for runs in self.rounds]

    def percentile_ms(self, percent: float) -> float:
        """A percentile over all runs, interpolated."""
        return float(np.percentile(self.runs, percent))

    @property
    def mean_ms(self) -> float:
        """The mean over all runs, from which throughput follows."""
        return float(np.mean(self.runs))


def time_in_turns(
    candidates: Sequence[Run],
    *,
    seconds: float,
    rounds: int = 10,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Samples]:
    """Warm every candidate up, then time them in turns, about `seconds` of runs for each."""
    warm = [_warm_up(run, limit_s=max(0.5, seconds / 2)) for run in candidates]
    times: list[list[tuple[float, ...]]] = [[] for _ in candidates]
    for turn in range(rounds):
        for place in range(len(candidates)):
            chosen = (place + turn) % len(candidates)
            times[chosen].append(tuple(_slice(candidates[chosen], seconds / rounds)))
        progress(turn + 1, rounds)
    return [
        Samples(tuple(own), count, steady) for own, (count, steady) in zip(times, warm, strict=True)
    ]


def median_interval(samples: Samples, *, seed: int = 0) -> Interval:
    """95 % interval of the median over all runs, by resampling rounds."""
    rounds = [np.asarray(runs) for runs in samples.rounds]
    picks = np.random.default_rng(seed).integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    draws = [np.median(np.concatenate([rounds[i] for i in pick])) for pick in picks]
    low, high = np.quantile(draws, (0.025, 0.975))
    median = samples.percentile_ms(50)
    return Interval(min(float(low), median), max(float(high), median))


def ratio_interval(
    ours_ms: Sequence[float], theirs_ms: Sequence[float], *, seed: int = 0
) -> tuple[float, Interval]:
    """Ours over theirs: the ratio of the medians and its 95 % interval; below 1 we are faster."""
    ratio = float(np.median(ours_ms) / np.median(theirs_ms))
    draws = _resampled(ours_ms, seed) / _resampled(theirs_ms, seed + 1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return ratio, Interval(float(low), float(high))


def paired_ratio_interval(
    ours_ms: Sequence[float], theirs_ms: Sequence[float], *, seed: int = 0
) -> tuple[float, Interval]:
    """The same of medians from the same rounds, which drift together: rounds are drawn jointly."""
    ours, theirs = np.asarray(ours_ms, np.float64), np.asarray(theirs_ms, np.float64)
    ratio = float(np.median(ours) / np.median(theirs))
    picks = np.random.default_rng(seed).integers(0, len(ours), (_RESAMPLES, len(ours)))
    draws = np.median(ours[picks], axis=1) / np.median(theirs[picks], axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return ratio, Interval(float(low), float(high))


def _resampled(medians_ms: Sequence[float], seed: int) -> Float64s:
    values = np.asarray(medians_ms, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    return np.asarray(np.median(values[picks], axis=1))


def _warm_up(run: Run, *, limit_s: float) -> tuple[int, bool]:
    """Run until steady or out of time; returns the number of runs and whether it is steady."""
    started = perf_counter()
    times: list[float] = []
    while True:
        times.append(_timed_ms(run))
        if len(times) >= 2 * _WINDOW and len(times) % _WINDOW == 0:
            before, now = np.median(times[-2 * _WINDOW : -_WINDOW]), np.median(times[-_WINDOW:])
            if abs(now - before) <= _AGREE * before:
                return len(times), True
        if perf_counter() - started > limit_s and len(times) >= _WINDOW:
            return len(times), False


def _slice(run: Run, seconds: float) -> list[float]:
    """At least two runs, and as many as fit in the time."""
    started = perf_counter()
    times = [_timed_ms(run), _timed_ms(run)]
    while perf_counter() - started < seconds:
        times.append(_timed_ms(run))
    return times


def _timed_ms(run: Run) -> float:
    started = perf_counter()
    run()
    return 1000 * (perf_counter() - started)
