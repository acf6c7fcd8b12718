"""Charts as SVG text that can stand inside an HTML page, in light and in dark.

Axes and text are drawn in one marker colour, which becomes CSS's `currentColor`. Text stays text,
so it can be searched and read aloud. The same figures always give the same bytes. Only this file
imports matplotlib.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from resdeploy.deploy.metrics.intervals import Interval
from resdeploy.deploy.specs import VARIANTS
from resdeploy.deploy.verification.explain import LayerExplanation
from resdeploy.deploy.verification.reports.report import VariantReport

# Readable on white and on near-black alike.
COLOURS = ("#2f81d0", "#d9772b", "#2fa36b", "#b65cc4", "#c94f4f", "#8a8f2b")
_INK = "#010203"
# inches: on a screen, and on a phone, which would shrink the letters of a wide one
WIDE, NARROW = 7.0, 3.9
_LEAST_POINTS = 10.0  # what an axis of accuracy spans at least


@dataclass(frozen=True)
class TradePoint:
    """A variant that was both verified and timed: percent and milliseconds with 95 % intervals."""

    name: str
    variant: str
    milliseconds: float
    ms_ci95: Interval
    percent: float
    percent_ci95: Interval


_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def colour_of(variant: str) -> str:
    """A variant has the same colour in every chart, whichever others are shown."""
    place = VARIANTS.index(variant) if variant in VARIANTS else len(COLOURS) - 1
    return COLOURS[place % len(COLOURS)]


def drop_chart(
    variants: Sequence[VariantReport], limit: float | None, *, width: float = WIDE
) -> str:
    """The drop of every variant with its interval, and the limit as a line."""
    shown = [v for v in variants if v.compared is not None and v.compared.estimate is not None]
    with _figure("drop", width, 0.9 + 0.4 * len(shown)) as (axes, pages):
        for place, variant in enumerate(reversed(shown)):
            found = None if variant.compared is None else variant.compared.estimate
            if found is None:
                continue
            colour, interval = colour_of(variant.variant), found.interval
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=3)
            axes.plot([found.drop], [place], "o", color=colour, markersize=8)
        axes.axvline(0, color=_INK, linewidth=0.8)
        if limit is not None:
            axes.axvline(limit, color=_INK, linewidth=1, linestyle="--")
            axes.annotate(
                f"limit: {limit:g}", (limit, len(shown) - 0.5), xytext=(3, 0),
                textcoords="offset points",
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [_plain(v.name) for v in reversed(shown)])
        axes.set_ylim(-0.6, len(shown) - 0.2)
        axes.set_xlabel("top-1 drop in points, with 95 % interval")
    return pages[0]


def trade_chart(points: Sequence[TradePoint], y_label: str, *, width: float = WIDE) -> str:
    """Latency against accuracy with the intervals of both; upper left is better.

    The axis of accuracy holds the whole intervals and at least ten points, so that a difference
    within noise looks like one.
    """
    with _figure("trade", width, 3.6) as (axes, pages):
        for place, point in enumerate(sorted(points, key=lambda point: point.milliseconds)):
            x, y, colour = point.milliseconds, point.percent, colour_of(point.variant)
            above_or_below = 6 if place % 2 == 0 else -14  # names of neighbours do not meet
            axes.errorbar(
                [x], [y],
                xerr=_arms(x, point.ms_ci95),
                yerr=_arms(y, point.percent_ci95),
                fmt="o", color=colour, markersize=9, elinewidth=1.5, capsize=3,
            )  # fmt: skip
            axes.annotate(
                _plain(point.name), (x, y), xytext=(8, above_or_below), textcoords="offset points"
            )
        axes.set_xlim(left=0, right=1.25 * max(point.ms_ci95.high for point in points))
        low = min(point.percent_ci95.low for point in points)
        high = max(point.percent_ci95.high for point in points)
        pad = max(0.5, (_LEAST_POINTS - (high - low)) / 2)
        axes.set_ylim(max(0.0, low - pad), min(100.5, high + pad))
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_xlabel("median milliseconds, batch 1")
        axes.set_ylabel(y_label)
    return pages[0]


def _arms(value: float, interval: Interval) -> list[list[float]]:
    """An interval as matplotlib wants it: lengths below and above, never negative by round-off."""
    return [[max(0.0, value - interval.low)], [max(0.0, interval.high - value)]]


def layer_chart(found: LayerExplanation, *, width: float = WIDE) -> str:
    """SQNR after every layer in dB, of the graph so far and of the layer alone."""
    layers = found.layers
    worst = max(range(len(layers)), key=lambda i: layers[i].share)
    with _figure(f"layers {found.variant}", width, 3.2) as (axes, pages):
        own, whole = ([getattr(e, key) for e in layers] for key in ("own_db", "whole_db"))
        axes.plot(own, color=COLOURS[1], marker=".", linewidth=1, label="the layer alone")
        axes.plot(whole, color=COLOURS[0], marker=".", linewidth=1, label="the graph so far")
        axes.annotate(
            _plain(layers[worst].name), (worst, own[worst]), xytext=(0, -14),
            textcoords="offset points", ha="center",
        )  # fmt: skip
        axes.set_xlabel("layer, from input to logits")
        axes.set_ylabel("SQNR dB")
        axes.margins(y=0.2)
        axes.legend()
    return pages[0]


def latency_chart(content: dict[str, Any], *, width: float = WIDE) -> str:
    """Medians by batch, one bar per variant and backend, of what `bench --json` prints."""
    results = content["results"]
    batches = sorted({r["batch"] for r in results})
    names = list(dict.fromkeys((r["variant"], r["backend"]) for r in results))
    bar = 0.8 / len(names)
    with _figure("latency", width, 3.6) as (axes, pages):
        for place, name in enumerate(names):
            own = {r["batch"]: r for r in results if (r["variant"], r["backend"]) == name}
            held = [batch for batch in batches if batch in own]
            x = [batches.index(batch) + (place + 0.5) * bar - 0.4 for batch in held]
            medians = [own[batch]["p50_ms"] / batch for batch in held]
            spread = [
                [m - own[b]["p50_ci95_ms"][0] / b for m, b in zip(medians, held, strict=True)],
                [own[b]["p50_ci95_ms"][1] / b - m for m, b in zip(medians, held, strict=True)],
            ]
            colour = colour_of(name[0])
            label = _plain(" ".join(name))
            axes.bar(x, medians, bar * 0.9, yerr=spread, color=colour, ecolor=_INK, label=label)
        axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
        axes.set_ylabel("median milliseconds per image")
        axes.legend()
    return pages[0]


@contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes and a list that holds the SVG after the block."""
    pages: list[str] = []
    # ids are hashes of the salt: several charts in one page must not share them
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{name} {width}"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.subplots(), pages
        file = StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]  # a page has its own XML declaration and doctype
    pages.append(text.replace(_INK, "currentColor"))


def _plain(text: str) -> str:
    """A dollar sign would begin matplotlib's formula language."""
    return text.replace("$", r"\$")
