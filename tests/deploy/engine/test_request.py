"""A request and a report survive their journey between the processes as JSON."""

import json
from dataclasses import asdict

import pytest

from resdeploy.deploy.engine.layer_table import LayerCounts
from resdeploy.deploy.engine.request import (
    BuildOptions,
    BuildReport,
    BuildRequest,
    options_from_json,
)
from resdeploy.deploy.specs import BatchRange

_OPTIONS = BuildOptions(
    batch=BatchRange(1, 2, 4),
    compute_capabilities=("8.6", "12.0"),
    workspace_mib=64,
    timing_cache="kernels.cache",
    strongly_typed=True,
    version_compatible=True,
    hardware_compatible=True,
    dla_core=0,
    optimization_level=5,
)


def test_a_request_is_one_line_and_comes_back_equal() -> None:
    for options in (_OPTIONS, BuildOptions()):
        request = BuildRequest(
            graph="flüsse/fp16.onnx", plan="plan", flavor="tensorrt-rtx", precision="int8",
            typing="strong", input_name="input", input_sizes=(3, 224, 224), options=options,
        )  # fmt: skip
        text = request.to_json()
        assert "\n" not in text
        assert BuildRequest.from_json(text) == request


def test_options_come_back_equal() -> None:
    assert options_from_json(json.loads(json.dumps(asdict(_OPTIONS)))) == _OPTIONS
    with pytest.raises(TypeError, match="surprise"):
        options_from_json({**asdict(_OPTIONS), "surprise": 1})


@pytest.mark.parametrize("counts", [None, LayerCounts(3, 1, 1, 1)])
def test_a_report_comes_back_equal(counts: LayerCounts | None) -> None:
    report = BuildReport("10.3.0", 2.5, 256, 999, 300, ("slow",), counts, counts)
    assert BuildReport.from_json(json.loads(json.dumps(asdict(report)))) == report
