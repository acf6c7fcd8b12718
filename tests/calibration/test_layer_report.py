"""Rows tell the grid a layer's input lies on, and the noise the layer adds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.graph.qdq import insert_qdq
from resdeploy.calibration.layer_report import layer_rows, measured_layers
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.ranges.methods import min_max
from resdeploy.calibration.ranges.observers import Extremes
from resdeploy.calibration.ranges.ranges import affine_uint8, symmetric_scale
from resdeploy.deploy.targets import TARGETS, TENSORRT, Target


@pytest.mark.parametrize("target", TARGETS)
def test_rows(
    float_graph: Callable[[str], onnx.ModelProto], tmp_path: Path, target: Target
) -> None:
    model = float_graph("cifar_resnet8")
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    placed = plan(model, target=target, float_nodes=convolutions[2:3])
    extremes = {tensor: Extremes() for tensor in placed.activations}
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    collect(model, [images], {tensor: [e] for tensor, e in extremes.items()})
    ranges = {tensor: min_max(e) for tensor, e in extremes.items()}
    onnx.save(model, tmp_path / "fp32.onnx")
    onnx.save(insert_qdq(model, placed, ranges, {}, {}), tmp_path / "int8.onnx")
    rows = {
        row.name: row for row in layer_rows(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images)
    }
    first = rows[convolutions[0]]
    if target == TENSORRT:
        scale, zero = symmetric_scale(ranges["input"]), 0
    else:
        scale, zero = affine_uint8(ranges["input"])
    assert first.scale == pytest.approx(float(scale))
    assert first.zero_point == zero
    assert first.weight_peak == 127
    assert first.own_db == pytest.approx(first.whole_db, abs=0.5)  # nothing before it
    assert first.own_db > 25
    left = rows[convolutions[2]]
    assert left.weight_peak is None
    assert (left.scale is None) == (target == TENSORRT)
    assert sum(row.share for row in rows.values()) == pytest.approx(1, abs=1e-6)
    plain = measured_layers(tmp_path, ["int8"], images)
    assert [row["name"] for row in plain["int8"]] == list(rows)
