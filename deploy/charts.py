"""Charts as SVG text that can stand inside an HTML page, in light and in dark.

Lines and letters that have no meaning of their own are drawn in one placeholder colour, which
becomes CSS's `currentColor`. Letters stay letters, so they can be found and read aloud. The same
figures always give the same bytes. The only home of matplotlib.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from resdeploy.deploy.explain import LayerExplanation
from resdeploy.deploy.verify_report import VariantReport

# Readable on white and on near-black alike.
COLOURS = ("#2f81d0", "#d9772b", "#2fa36b", "#b65cc4", "#c94f4f", "#8a8f2b")
_INK = "#010203"
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


def drop_chart(variants: Sequence[VariantReport], limit: float | None) -> str:
    """The drop of every variant with its interval, and the limit as a line."""
    shown = [v for v in variants if v.accuracy.counts is not None]
    with _figure("drop", 7, 0.9 + 0.4 * len(shown)) as (axes, pages):
        for place, variant in enumerate(reversed(shown)):
            counts, interval = variant.accuracy.counts, variant.accuracy.drop_ci95
            if counts is None or interval is None:
                continue
            colour = COLOURS[(len(shown) - 1 - place) % len(COLOURS)]
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=3)
            axes.plot([counts.drop], [place], "o", color=colour, markersize=8)
        axes.axvline(0, color=_INK, linewidth=0.8)
        if limit is not None:
            axes.axvline(limit, color=_INK, linewidth=1, linestyle="--")
            axes.annotate(
                f"limit {limit:g}", (limit, len(shown) - 0.5), xytext=(3, 0),
                textcoords="offset points",
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [_plain(v.name) for v in reversed(shown)])
        axes.set_ylim(-0.6, len(shown) - 0.2)
        axes.set_xlabel("points of top-1 lost, with 95 % interval")
    return pages[0]


def trade_chart(points: Sequence[tuple[int, str, float, float]], what: str) -> str:
    """Latency against accuracy: (place, name, ms, percent); upper left is better.

    The place among the variants decides the colour, the same as in `drop_chart`.
    """
    with _figure("trade", 7, 3.6) as (axes, pages):
        for place, name, milliseconds, percent in points:
            axes.plot([milliseconds], [percent], "o", color=COLOURS[place % len(COLOURS)], ms=10)
            axes.annotate(
                _plain(name), (milliseconds, percent), xytext=(8, 4), textcoords="offset points"
            )
        axes.set_xlim(left=0, right=1.25 * max(point[2] for point in points))
        axes.margins(y=0.3)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_xlabel("median milliseconds, batch 1")
        axes.set_ylabel(what)
    return pages[0]


def layer_chart(found: LayerExplanation) -> str:
    """SQNR behind every layer in dB, of the graph so far and of the layer alone."""
    layers = found.layers
    worst = max(range(len(layers)), key=lambda i: layers[i].share)
    with _figure(f"layers {found.variant}", 7, 3.2) as (axes, pages):
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


def latency_chart(content: dict[str, Any]) -> str:
    """Medians by batch, one bar per precision and backend, of what `bench --json` prints."""
    results = content["results"]
    batches = sorted({r["batch"] for r in results})
    names = list(dict.fromkeys((r["precision"], r["backend"]) for r in results))
    width = 0.8 / len(names)
    with _figure("latency", 7, 3.6) as (axes, pages):
        for place, name in enumerate(names):
            own = {r["batch"]: r for r in results if (r["precision"], r["backend"]) == name}
            held = [batch for batch in batches if batch in own]
            x = [batches.index(batch) + (place + 0.5) * width - 0.4 for batch in held]
            medians = [own[batch]["p50_ms"] / batch for batch in held]
            spread = [
                [m - own[b]["p50_ci95_ms"][0] / b for m, b in zip(medians, held, strict=True)],
                [own[b]["p50_ci95_ms"][1] / b - m for m, b in zip(medians, held, strict=True)],
            ]
            colour = COLOURS[place % len(COLOURS)]
            label = _plain(" ".join(name))
            axes.bar(x, medians, width * 0.9, yerr=spread, color=colour, ecolor=_INK, label=label)
        axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
        axes.set_ylabel("median milliseconds per picture")
        axes.legend()
    return pages[0]


@contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes and a list that holds the SVG after the block."""
    pages: list[str] = []
    # ids are hashes of the salt: several charts in one page must not share them
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
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
