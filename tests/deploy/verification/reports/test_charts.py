"""Charts are SVG that stands in a page: no colours of their own for text, same bytes again."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from resdeploy.deploy.metrics.intervals import Interval, Paired
from resdeploy.deploy.metrics.layer_error import LayerError
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.explain import LayerExplanation
from resdeploy.deploy.verification.reports.charts import (
    TradePoint,
    colour_of,
    drop_chart,
    latency_chart,
    layer_chart,
    trade_chart,
)
from resdeploy.deploy.verification.reports.report import VariantReport


def _variant(name: str) -> VariantReport:
    counts, interval = Paired(100, 3, 1), Interval(-1.0, 5.0)
    accuracy = replace(Accuracy(100, (), None), counts=counts, drop_ci95=interval)
    return VariantReport(
        name, "int8", "int8", "ort-cpu", accuracy, None, "pass",
        compared=accuracy, compared_with="fp32.onnx",
    )  # fmt: skip


def _charts() -> dict[str, str]:
    layers = tuple(LayerError(f"conv{k}$", "Conv", 30 - k, 25 + k, 0.1, False) for k in range(5))
    result = {
        "precision": "fp32", "variant": "fp32", "backend": "ort-cpu", "batch": 1,
        "p50_ms": 4.0, "p50_ci95_ms": [3.5, 4.5],
    }  # fmt: skip
    return {
        "drop": drop_chart([_variant("int8$"), _variant("int8-cpu")], 1.0),
        "trade": trade_chart(
            [TradePoint("int8$", "int8", 3.5, Interval(3.2, 3.9), 86.1, Interval(82.2, 89.3))],
            "top-1 %",
        ),
        "layers": layer_chart(LayerExplanation("int8", layers, "look at layer 1")),
        "latency": latency_chart({"results": [result, {**result, "batch": 8}]}),
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("drop", ["int8$", "int8-cpu", "limit: 1"]),
        ("trade", ["int8$", "top-1 %", "median milliseconds, batch 1"]),
        ("layers", ["conv0$", "the layer alone", "SQNR dB"]),
        ("latency", ["batch 1", "batch 8", "fp32 ort-cpu"]),
    ],
)
def test_text_stays_text_and_takes_the_pages_colour(name: str, words: list[str]) -> None:
    svg = _charts()[name]
    root = ElementTree.fromstring(svg)
    text = " ".join("".join(element.itertext()) for element in root.iter())
    assert all(word in text for word in words), text
    assert "currentColor" in svg and "#010203" not in svg


@pytest.mark.slow
def test_the_same_figures_give_the_same_bytes() -> None:
    assert _charts() == _charts()


def test_a_variant_has_one_colour_whatever_else_is_shown() -> None:
    assert len({colour_of(name) for name in ("fp32", "fp16", "int8", "int8-fp16", "int8-cpu")}) == 5
    alone, together = (
        drop_chart(shown, 1.0) for shown in ([_variant("a")], [_variant("b"), _variant("a")])
    )
    assert colour_of("int8") in alone and colour_of("int8") in together
