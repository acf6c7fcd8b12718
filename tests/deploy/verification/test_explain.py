"""`verify --explain` names the layer and the preprocessing, and accuses no one without reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from resdeploy.calibration.layerwise import layer_errors
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.cli.verify import verify as command
from resdeploy.deploy.verification.reports.html_report import html_report
from resdeploy.deploy.verification.verify import verify

WriteBundle = Callable[..., Path]


@pytest.mark.slow
def test_the_layer_that_errs_is_named_in_json_and_page(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    skewed = identity + np.float32(0.4) * identity[::-1]
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": skewed}, bias={
        "int8": np.array([-0.3, 0, 0], np.float32)})  # fmt: skip
    report = verify(bundle, data=colours, explain=layer_errors)
    found = report.to_json()["explanation"]["layers"]
    assert set(found) == {"int8"}
    assert "look at layer 1 of 1, Gemm" in found["int8"]["sentence"]
    assert found["int8"]["layers"][0]["share"] == 1
    page = html_report(report)
    assert "Layers and preprocessing" in page and "the layer alone" in page


def test_without_images_the_recorded_inputs_explain(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    bundle = write_bundle(tmp_path / "b", {"fp32": identity, "int8": 4 * identity})
    explanation = verify(bundle, explain=layer_errors).explanation
    assert explanation is not None and explanation.search is None
    assert explanation.layers[0].layers[0].own_db < 0


@pytest.mark.slow
def test_swapped_channels_are_recognised(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    trained_on_bgr = identity[:, ::-1].copy()
    bundle = write_bundle(tmp_path / "b", {"fp32": trained_on_bgr})
    result = CliRunner().invoke(command, [str(bundle), "--data", str(colours), "--explain"])
    assert result.exit_code == 3
    assert "top-1 is 100.0 % with BGR instead of RGB" in result.output
    assert "33.3 % with the bundle's own" in result.output


@pytest.mark.slow
def test_the_right_preprocessing_is_not_accused(
    tmp_path: Path, write_bundle: WriteBundle, identity: Float32s, colours: Path
) -> None:
    report = verify(
        write_bundle(tmp_path / "b", {"fp32": identity}), data=colours, explain=layer_errors
    )
    assert report.verdict == "pass"
    assert report.explanation is not None and report.explanation.search is not None
    assert len(report.explanation.search.trials) >= 5
