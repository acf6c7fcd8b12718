"""What `bench` measured, as frozen dataclasses, as JSON, and against an earlier result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.specs import Precision
from resdeploy.deploy.statistics import Interval
from resdeploy.deploy.timing import Samples, median_interval, ratio_interval


@dataclass(frozen=True)
class Timed:
    """One precision on one backend at one batch.

    `peak_memory_bytes`: the most resident memory of a fresh process that opens only this and runs
    one picture, Python and libraries included; None where it could not be measured.
    """

    precision: Precision
    variant: str
    backend: str
    batch: int
    samples: Samples
    peak_memory_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Milliseconds per batch, pictures per second."""
        samples = self.samples
        return {
            "precision": self.precision,
            "variant": self.variant,
            "backend": self.backend,
            "batch": self.batch,
            "p50_ms": _ms(samples.percentile_ms(50)),
            "p50_ci95_ms": _both(median_interval(samples)),
            "p90_ms": _ms(samples.percentile_ms(90)),
            "p99_ms": _ms(samples.percentile_ms(99)),
            "images_per_second": round(1000 * self.batch / samples.mean_ms, 2),
            "runs": len(samples.runs),
            "warm_up_runs": samples.warm_up_runs,
            "steady": samples.steady,
            "peak_memory_bytes": self.peak_memory_bytes,
            "round_medians_ms": [_ms(median) for median in samples.medians_ms],
        }


@dataclass(frozen=True)
class BenchReport:
    """All results; `stages` and `end_to_end` are milliseconds of one picture at batch 1.

    `peak_memory_bytes` is that of the process that timed them all; each result has its own.
    """

    bundle: Path
    manifest: Manifest
    results: tuple[Timed, ...]
    pictures: str
    stages: dict[str, float]
    end_to_end: dict[str, float]
    machine: dict[str, Any]
    peak_memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """What `resdeploy bench --json` prints."""
        return {
            "bundle": str(self.bundle),
            "architecture": self.manifest.model.architecture,
            "results": [result.to_json() for result in self.results],
            "pictures": self.pictures,
            "stages_ms": {name: _ms(value) for name, value in self.stages.items()},
            "end_to_end_ms": {name: _ms(value) for name, value in self.end_to_end.items()},
            "peak_memory_bytes": self.peak_memory_bytes,
            "machine": self.machine,
        }


def compare_results(ours: dict[str, Any], theirs: dict[str, Any]) -> list[dict[str, Any]]:
    """Ours over theirs for every combination both have; below 1, ours is faster.

    Raises:
        InputError: `theirs` is not what `resdeploy bench --json` prints.
    """
    keys = ("precision", "backend", "batch")
    try:
        earlier = {
            tuple(r[key] for key in keys): [float(ms) for ms in r["round_medians_ms"]]
            for r in theirs["results"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a result of resdeploy bench --json: {error!r}") from error
    compared = []
    for result in ours["results"]:
        place = tuple(result[key] for key in keys)
        if earlier.get(place):
            ratio, interval = ratio_interval(result["round_medians_ms"], earlier[place])
            values = {"ratio": round(ratio, 4), "ratio_ci95": _both(interval)}
            compared.append({**dict(zip(keys, place, strict=True)), **values})
    return compared


def _ms(value: float) -> float:
    return round(value, 4)


def _both(interval: Interval) -> list[float]:
    return [_ms(interval.low), _ms(interval.high)]
