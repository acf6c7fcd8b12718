"""What `bench` measured, as frozen dataclasses and as JSON, and its ratio to an earlier result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.benchmark.power import Power
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.metrics.timing import Samples, median_interval, ratio_interval
from resdeploy.deploy.specs import Precision


@dataclass(frozen=True)
class Timed:
    """One precision on one backend at one batch.

    `peak_memory_bytes`: peak resident memory of a fresh process that opens only this and runs one
    image, Python and libraries included; None if it could not be measured. `power`: of the board
    while this runs by itself; None where it has no monitor.
    """

    precision: Precision
    variant: str
    backend: str
    batch: int
    samples: Samples
    peak_memory_bytes: int | None
    power: Power | None = None

    def to_json(self) -> dict[str, Any]:
        """Milliseconds per batch, images per second."""
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
            "watts": None if self.power is None else round(self.power.watts, 3),
            "images_per_joule": None
            if self.power is None
            else round(self.power.images_per_joule, 3),
            "round_medians_ms": [_ms(median) for median in samples.medians_ms],
        }


@dataclass(frozen=True)
class BenchReport:
    """All results; `stages` and `end_to_end` are milliseconds of one image at batch 1.

    `peak_memory_bytes` is that of the process that timed everything; each result has its own too.
    """

    bundle: Path
    manifest: Manifest
    results: tuple[Timed, ...]
    images: str
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
            "images": self.images,
            "stages_ms": {name: _ms(value) for name, value in self.stages.items()},
            "end_to_end_ms": {name: _ms(value) for name, value in self.end_to_end.items()},
            "peak_memory_bytes": self.peak_memory_bytes,
            "machine": self.machine,
        }


def compare_results(ours: dict[str, Any], theirs: dict[str, Any]) -> list[dict[str, Any]]:
    """The ratio of ours to theirs for every combination that both have; below 1, ours is faster.

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
            values = {
                "variant": result["variant"],
                "ratio": round(ratio, 4),
                "ratio_ci95": _both(interval),
            }
            compared.append({**dict(zip(keys, place, strict=True)), **values})
    return compared


def is_fuller(kept: Any, content: dict[str, Any]) -> bool:
    """Whether a kept result times all that `content` times, and more; False for a damaged one."""
    try:
        held, ours = (
            {(r["variant"], r["backend"], r["batch"]) for r in result["results"]}
            for result in (kept, content)
        )
    except (KeyError, TypeError):
        return False
    return held > ours


def _ms(value: float) -> float:
    return round(value, 4)


def _both(interval: Interval) -> list[float]:
    return [_ms(interval.low), _ms(interval.high)]
