"""One HTML file that shows a verification: it opens offline, on a phone, and prints.

No script, no link, no font from elsewhere; its content security policy forbids them. Everything
that comes from the user (labels, paths, names) is escaped by the template engine.
"""

import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from resdeploy.deploy.accuracy import ClassDrop, Flip
from resdeploy.deploy.bundle import REPORTS
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.gate import DEFAULT_MAX_DROP
from resdeploy.deploy.optional import needs
from resdeploy.deploy.pictures import open_picture
from resdeploy.deploy.verify_report import ROW_TITLES, VariantReport, VerifyReport, row

_TEMPLATE = "templates/report.html.j2"
_THUMBNAIL_PX = 144
_FLIPS_SHOWN = 24
_ROWS_SHOWN = 20


@dataclass(frozen=True)
class _FlipCard:
    """A flipped picture as the page shows it; `picture` is a data URI or None."""

    picture: str | None
    path: str
    kind: str
    truth: str | None
    expected: str
    expected_confidence: str
    got: str
    got_confidence: str


def html_report(report: VerifyReport, *, bench: Mapping[str, Any] | None = None) -> str:
    """The whole page.

    Args:
        bench: what `resdeploy bench --json` printed; default the result kept in the bundle.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is missing (the report extra).
    """
    with needs("an HTML report"):
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup

        from resdeploy.deploy import charts
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("resdeploy.deploy").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    bench = _kept_bench(report.bundle) if bench is None else bench
    drawn = {}
    if any(variant.accuracy.counts is not None for variant in report.variants):
        drawn["drop"] = Markup(charts.drop_chart(report.variants, _limit(report)))
    points, what = _trade(report, bench)
    if points:
        drawn["trade"] = Markup(charts.trade_chart(points, what))
    if bench is not None:
        drawn["latency"] = Markup(charts.latency_chart(dict(bench)))
    explained = () if report.explanation is None else report.explanation.layers
    page = environment.from_string(template).render(
        report=report,
        content=report.to_json(),
        titles=ROW_TITLES,
        rows=[row(variant) for variant in report.variants],
        charts=drawn,
        sections=[_section(report, variant) for variant in report.variants],
        manifest=report.manifest.to_json(),
        bench=bench,
        layers=[(found, Markup(charts.layer_chart(found))) for found in explained],
        facts=_facts(report),
    )
    return page + "\n"


def _section(report: VerifyReport, variant: VariantReport) -> dict[str, Any]:
    """Flips, confusion and classes of one variant."""
    flips = _ordered(variant.accuracy.flips)
    labels = report.manifest.labels
    pairs = Counter((flip.expected, flip.got) for flip in flips)
    changed = [drop for drop in variant.accuracy.classes if drop.drop != 0]
    on_pictures = report.evaluation is not None and bool(labels)
    return {
        "name": variant.name,
        "total": len(flips),
        "cards": [_card(report, flip) for flip in flips[:_FLIPS_SHOWN]] if on_pictures else [],
        "confusion": [
            (labels[was], labels[now], count)
            for (was, now), count in pairs.most_common(_ROWS_SHOWN)
            if labels
        ],
        "classes": [_class_row(drop, labels) for drop in _extremes(changed)],
        "classes_total": len(changed),
    }


def _card(report: VerifyReport, flip: Flip) -> _FlipCard:
    evaluation, labels = report.evaluation, report.manifest.labels
    path = evaluation.paths[flip.position] if evaluation is not None else Path()
    return _FlipCard(
        picture=_thumbnail(path),
        path="/".join(path.parts[-2:]),
        kind=flip.kind,
        truth=None if flip.truth is None else labels[flip.truth],
        expected=labels[flip.expected],
        expected_confidence=_percent(flip.expected_confidence),
        got=labels[flip.got],
        got_confidence=_percent(flip.got_confidence),
    )


def _thumbnail(path: Path) -> str | None:
    """A small JPEG as a data URI; None when the file is gone by now."""
    try:
        image = open_picture(path)
    except InputError:
        return None
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR)
    file = BytesIO()
    image.save(file, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _ordered(flips: tuple[Flip, ...]) -> list[Flip]:
    """What was lost first, and there the most confident answers first."""
    kinds = ("lost", "changed", "gained")
    return sorted(flips, key=lambda flip: (kinds.index(flip.kind), -flip.expected_confidence))


def _extremes(drops: list[ClassDrop]) -> list[ClassDrop]:
    """The classes that lost most and gained most, in order."""
    half = _ROWS_SHOWN // 2
    return drops if len(drops) <= _ROWS_SHOWN else [*drops[:half], *drops[-half:]]


def _class_row(drop: ClassDrop, labels: tuple[str, ...]) -> tuple[str, ...]:
    return (
        labels[drop.index],
        str(drop.images),
        f"{drop.top1_reference:.1f}",
        f"{drop.top1:.1f}",
        f"{drop.drop:+.1f}",
        f"{drop.p_holm:.2g}",
    )


def _trade(
    report: VerifyReport, bench: Mapping[str, Any] | None
) -> tuple[list[tuple[int, str, float, float]], str]:
    """(place, name, ms at batch 1, percent) of every variant that was both verified and timed."""
    if bench is None:
        return [], ""
    times = {(r["variant"], r["backend"]): r["p50_ms"] for r in bench["results"] if r["batch"] == 1}
    labelled = all(v.accuracy.truthful is not None for v in report.variants)
    points = []
    for place, variant in enumerate(report.variants):
        truthful, agreement = variant.accuracy.truthful, variant.accuracy.agreement
        percent = truthful.top1 if labelled and truthful is not None else agreement
        milliseconds = times.get((variant.variant, variant.backend))
        if percent is not None and milliseconds is not None:
            points.append((place, variant.name, milliseconds, percent))
    return points, "top-1 %" if labelled else "agreement %"


def _kept_bench(bundle: Path) -> Mapping[str, Any] | None:
    """The result `resdeploy bench` left in the bundle; a damaged one is as good as none."""
    try:
        content = json.loads((bundle / REPORTS / "bench.json").read_text(encoding="utf-8"))
        complete = {"variant", "backend", "batch", "precision", "p50_ms", "p50_ci95_ms"}
        usable = content["results"] and all(complete <= set(r) for r in content["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if usable else None


def _limit(report: VerifyReport) -> float:
    limits = [gate.limit for gate in report.gates if gate.name == "max-drop"]
    return DEFAULT_MAX_DROP if not limits or limits[0] is None else limits[0]


def _facts(report: VerifyReport) -> list[tuple[str, str]]:
    """What was done to the graph, and what is needed to do it again."""
    manifest = report.manifest
    facts = [
        ("architecture", manifest.model.architecture),
        ("parameters", f"{manifest.model.parameters:,}"),
        ("checkpoint", f"sha256 {manifest.model.checkpoint_sha256}"),
    ]
    for name, proof in manifest.proofs.items():
        facts.append((name.replace("_", " "), _words(proof)))
    if manifest.calibration is not None:
        facts.append(("calibration", _words(manifest.calibration)))
    facts.append(("preprocessing", _words(manifest.preprocess.to_json())))
    for variant, file in manifest.variants.items():
        facts.append((variant, f"{file.file}, {file.bytes / 1e6:.1f} MB, sha256 {file.sha256}"))
    facts.append(("versions", _words(manifest.tools)))
    return facts


def _words(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{key.replace('_', ' ')} {item}" for key, item in value.items() if item != {})


def _percent(value: float) -> str:
    return f"{value:.0%}" if value == value else "NaN"
