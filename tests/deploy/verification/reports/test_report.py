"""One row and one line for every variant, and JSON without NaN."""

import pytest

from resdeploy.deploy.metrics.intervals import Interval, Paired
from resdeploy.deploy.verification.accuracy import Accuracy, Numbers, Truthful
from resdeploy.deploy.verification.reports.report import ROW_TITLES, VariantReport, figures, row

_ACCURACY = Accuracy(
    images=367,
    not_finite=(),
    truthful=Truthful(85.56, Interval(81.6, 88.8), 99.0, 4.0),
    counts=Paired(367, 3, 1),
    drop_ci95=Interval(-0.5, 1.6),
    agreement=98.1,
    numbers=Numbers(
        max_abs=0.254, sqnr_db=21.32, sqnr_ci95=Interval(20.6, 22.0), cosine=0.99, kl=0.01
    ),
)


def test_a_row_has_a_cell_for_every_title() -> None:
    variant = VariantReport(
        "int8", "int8", "int8", "ort-cpu", _ACCURACY, None, "inconclusive",
        reference="fp32.onnx", compared=_ACCURACY, compared_with="fp32.onnx",
    )  # fmt: skip
    cells = row(variant)
    assert len(cells) == len(ROW_TITLES)
    assert cells == (
        "int8", "ort-cpu", "inconclusive", "367", "85.56", "+0.54 (-0.50 … +1.60)",
        "+0.54", "fp32.onnx", "98.10", "21.3", "0.25",
    )  # fmt: skip
    assert figures(variant).startswith("variant int8, backend ort-cpu, verdict inconclusive")


def test_unknown_figures_are_empty_and_left_out_of_the_line() -> None:
    variant = VariantReport("fp32", "fp32", "fp32", "ort-cpu", None, Accuracy(8, (), None), "pass")
    assert row(variant)[4:] == ("",) * 7
    assert figures(variant) == "variant fp32, backend ort-cpu, verdict pass, images 8"
    assert variant.to_json()["recorded"]["images"] == 8 and variant.to_json()["top1"] is None


def test_a_variant_without_figures_is_a_mistake() -> None:
    variant = VariantReport("fp32", "fp32", "fp32", "ort-cpu", None, None, "pass")
    with pytest.raises(ValueError, match="neither images nor recorded logits"):
        _ = variant.accuracy
