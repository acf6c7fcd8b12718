"""What to do after a verification, in one sentence, and the figures that it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resdeploy.deploy.verification.reports.report import VariantReport, VerifyReport, drop_cell


@dataclass(frozen=True)
class Tile:
    """A variant at a glance; sizes and times compared with fp32, None where not known."""

    name: str
    variant: str
    verdict: str
    megabytes: float | None
    smaller: float | None
    milliseconds: float | None
    faster: float | None
    top1: float | None
    drop: str


def tiles(report: VerifyReport, bench: Mapping[str, Any] | None) -> list[Tile]:
    """One tile for each variant, in the order of the report."""
    held = report.manifest.variants
    times = median_ms(bench)
    full_bytes = held["fp32"].bytes if "fp32" in held else None
    full_ms = next((ms for (name, _), ms in times.items() if name == "fp32"), None)
    found = []
    for variant in report.variants:
        size = held[variant.variant].bytes if variant.variant in held else None
        ms = times.get((variant.variant, variant.backend))
        truthful = variant.accuracy.truthful
        found.append(
            Tile(
                name=variant.name,
                variant=variant.variant,
                verdict=variant.verdict,
                megabytes=None if size is None else size / 1e6,
                smaller=None if size is None or full_bytes is None else full_bytes / size,
                milliseconds=ms,
                faster=None if ms is None or full_ms is None else full_ms / ms,
                top1=None if truthful is None else truthful.top1,
                drop=drop_cell(variant),
            )
        )
    return found


def recommendation(report: VerifyReport, bench: Mapping[str, Any] | None) -> str:
    """Which variant to ship and what it costs, or what keeps all of them from shipping."""
    general = [g for g in report.gates if g.verdict == "fail" and g.variant not in _names(report)]
    if general:
        return f"Do not ship: {general[0].brief}."
    by_name = dict(zip(_names(report), tiles(report, bench), strict=True))
    passed = [v for v in report.variants if v.verdict == "pass"]
    doubtful = [v for v in report.variants if v.verdict == "inconclusive"]
    if not passed and not doubtful:
        return "Do not ship: every variant failed a check."
    chosen = min(passed or doubtful, key=lambda v: _cost(by_name[v.name]))
    start = "Ship" if passed else "Decide later about"
    refused = [v.name for v in report.variants if v.verdict == "fail"]
    but = f" Do not ship {', '.join(refused)}." if refused else ""
    return f"{start} {chosen.name}{_benefits(by_name[chosen.name], chosen)}.{but}"


def median_ms(bench: Mapping[str, Any] | None) -> dict[tuple[str, str], float]:
    """(variant, backend) to the median milliseconds of one image."""
    if bench is None:
        return {}
    results = [r for r in bench["results"] if r["batch"] == 1]
    return {(r["variant"], r["backend"]): float(r["p50_ms"]) for r in results}


def _names(report: VerifyReport) -> list[str]:
    return [variant.name for variant in report.variants]


def _cost(tile: Tile) -> tuple[float, float]:
    """The fastest first, the smallest where nothing was timed."""
    unknown = float("inf")
    slow = unknown if tile.milliseconds is None else tile.milliseconds
    return slow, unknown if tile.megabytes is None else tile.megabytes


def _benefits(tile: Tile, variant: VariantReport) -> str:
    parts = []
    if tile.faster is not None and variant.variant != "fp32":
        word = "faster" if tile.faster >= 1 else "slower"
        parts.append(f"{max(tile.faster, 1 / tile.faster):.1f}× {word}")
    if tile.smaller is not None and variant.variant != "fp32":
        parts.append(f"{tile.smaller:.1f}× smaller than fp32")
    found = None if variant.compared is None else variant.compared.estimate
    if found is not None:
        change = f"{-found.drop:+.2f}" if abs(found.drop) >= 0.005 else "0.00"
        parts.append(f"{change} points against {variant.compared_with}")
    return f": {', '.join(parts)}" if parts else ""
