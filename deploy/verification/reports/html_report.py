"""One HTML file that shows a verification; it opens offline and on a phone, and can be printed.

It has no scripts, links or fonts from elsewhere: its content security policy forbids them. The
template engine escapes everything that comes from the user (labels, paths, names).
"""

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from resdeploy.deploy.bundle.bundle import REPORTS
from resdeploy.deploy.defaults import MAX_DROP
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.files import read_sealed
from resdeploy.deploy.images.files import open_image
from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.optional import needs
from resdeploy.deploy.specs import VARIANTS
from resdeploy.deploy.verification.accuracy import ClassDrop, Flip
from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.reports.facts import facts
from resdeploy.deploy.verification.reports.recommendation import recommendation, tiles
from resdeploy.deploy.verification.reports.report import (
    ROW_TITLES,
    VariantReport,
    VerifyReport,
    row,
)

if TYPE_CHECKING:
    from markupsafe import Markup

    from resdeploy.deploy.verification.reports.charts import TradePoint

_TEMPLATE = "templates/report.html.j2"
_THUMBNAIL_PX = 320
_FLIPS_SHOWN = 24
_ROWS_SHOWN = 20


@dataclass(frozen=True)
class _FlipCard:
    """A flipped image as the page shows it; `image` is a data URI or None."""

    image: str | None
    path: str
    kind: str
    truth: str | None
    expected: str
    expected_confidence: str
    got: str
    got_confidence: str


def html_report(
    report: VerifyReport, *, bench: Mapping[str, Any] | None = None, command: str | None = None
) -> str:
    """The whole page; raises MissingDependencyError without jinja2 and matplotlib.

    `bench` is what `resdeploy bench --json` printed; default the result kept in the bundle.
    `command` is the line that made the report, to be repeated.
    """
    with needs("an HTML report"):
        from jinja2 import Environment, StrictUndefined

        from resdeploy.deploy.verification.reports import charts
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    home = files("resdeploy.deploy.verification.reports")
    template = home.joinpath(_TEMPLATE).read_text(encoding="utf-8")
    if bench is None and report.device is None:  # the bench kept here is of this machine
        bench = _kept_bench(report.bundle)
    page = environment.from_string(template).render(
        report=report,
        content=report.to_json(),
        titles=ROW_TITLES,
        rows=[row(variant) for variant in report.variants],
        charts=_drawn(report, bench),
        sections=[_section(report, variant) for variant in report.variants],
        manifest=report.manifest.to_json(),
        bench=bench,
        layers=() if report.explanation is None else report.explanation.layers,
        facts=facts(report),
        tiles=tiles(report, bench),
        recommended=recommendation(report, bench),
        colours={variant: charts.colour_of(variant) for variant in VARIANTS},
        command=command,
        checks=_checks(report),
    )
    return page + "\n"


def _drawn(report: VerifyReport, bench: Mapping[str, Any] | None) -> dict[str, dict[str, "Markup"]]:
    """Every chart twice: on a phone the letters of a wide one would be too small."""
    from markupsafe import Markup

    from resdeploy.deploy.verification.reports import charts

    wide, narrow = (_charts(report, bench, width) for width in (charts.WIDE, charts.NARROW))
    return {name: {"wide": Markup(wide[name]), "narrow": Markup(narrow[name])} for name in wide}


def _charts(report: VerifyReport, bench: Mapping[str, Any] | None, width: float) -> dict[str, str]:
    """The SVG of every chart that there are figures for, so many inches wide."""
    from resdeploy.deploy.verification.reports import charts

    drawn = {}
    if any(v.compared is not None and v.compared.estimate is not None for v in report.variants):
        drawn["drop"] = charts.drop_chart(report.variants, _limit(report), width=width)
    points, y_label = _trade(report, bench)
    if len(points) > 1:  # one alone is no trade
        drawn["trade"] = charts.trade_chart(points, y_label, width=width)
    if bench is not None:
        drawn["latency"] = charts.latency_chart(dict(bench), width=width)
    if report.explanation is not None:
        for found in report.explanation.layers:
            drawn[f"layers {found.variant}"] = charts.layer_chart(found, width=width)
    return drawn


def _checks(report: VerifyReport) -> tuple[list[Gate], list[Gate]]:
    """Those that need a reader, the failed ones first, and those that passed."""
    order = ("fail", "inconclusive", "not checked")
    asking = [gate for gate in report.gates if gate.verdict != "pass"]
    passed = [gate for gate in report.gates if gate.verdict == "pass"]
    return sorted(asking, key=lambda gate: order.index(gate.verdict)), passed


def _section(report: VerifyReport, variant: VariantReport) -> dict[str, Any]:
    """Flips, confusion and classes of one variant."""
    flips = _ordered(variant.flips)
    labels = report.manifest.labels
    pairs = Counter((flip.expected, flip.got) for flip in flips)
    compared = variant.compared or variant.accuracy
    changed = [drop for drop in compared.classes if drop.drop != 0]
    on_images = report.evaluation is not None and bool(labels)
    return {
        "name": variant.name,
        "variant": variant.variant,
        "against": variant.compared_with or "reference",
        "total": len(flips),
        "cards": [_card(report, flip) for flip in flips[:_FLIPS_SHOWN]] if on_images else [],
        "confusion": [
            (report.label(was), report.label(now), count)
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
        image=_thumbnail(path),
        path="/".join(path.parts[-2:]),
        kind=flip.kind,
        truth=None if flip.truth is None else labels[flip.truth],
        expected=report.label(flip.expected),
        expected_confidence=_percent(flip.expected_confidence),
        got=report.label(flip.got),
        got_confidence=_percent(flip.got_confidence),
    )


def _thumbnail(path: Path) -> str | None:
    """A small JPEG as a data URI; None if the file cannot be read any more."""
    try:
        image = open_image(path)
    except InputError:
        return None
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR)
    file = BytesIO()
    image.save(file, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _ordered(flips: tuple[Flip, ...]) -> list[Flip]:
    """Lost images first; of each kind, the most confident answers first."""
    kinds = ("lost", "changed", "gained")
    return sorted(flips, key=lambda flip: (kinds.index(flip.kind), -flip.expected_confidence))


def _extremes(drops: list[ClassDrop]) -> list[ClassDrop]:
    """The classes that lost most and those that gained most, in order."""
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


def _trade(report: VerifyReport, bench: Mapping[str, Any] | None) -> tuple[list["TradePoint"], str]:
    """Every variant that was both verified and timed, and the title of the axis."""
    from resdeploy.deploy.verification.reports.charts import TradePoint

    if bench is None:
        return [], ""
    times = {(r["variant"], r["backend"]): r for r in bench["results"] if r["batch"] == 1}
    labelled = all(v.accuracy.truthful is not None for v in report.variants)
    points = []
    for variant in report.variants:
        accuracy, timed = variant.accuracy, times.get((variant.variant, variant.backend))
        percent, interval = accuracy.agreement, accuracy.agreement_ci95
        if labelled and accuracy.truthful is not None:
            percent, interval = accuracy.truthful.top1, accuracy.truthful.top1_ci95
        if percent is None or interval is None or timed is None:
            continue
        ms = Interval(*timed["p50_ci95_ms"])
        points.append(
            TradePoint(variant.name, variant.variant, timed["p50_ms"], ms, percent, interval)
        )
    return points, "top-1 %" if labelled else "agreement %"


def _kept_bench(bundle: Path) -> Mapping[str, Any] | None:
    """The result `resdeploy bench` left in the bundle; None if there is none or it is damaged."""
    try:
        content = read_sealed(bundle / REPORTS / "bench.json")
        complete = {"variant", "backend", "batch", "precision", "p50_ms", "p50_ci95_ms"}
        usable = content["results"] and all(complete <= set(r) for r in content["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if usable else None


def _limit(report: VerifyReport) -> float:
    kinds = ("max-drop", "baseline", "against")
    limits = [gate.limit for gate in report.gates if gate.name in kinds]
    return MAX_DROP if not limits or limits[0] is None else limits[0]


def _percent(value: float) -> str:
    return f"{value:.0%}" if value == value else ""
