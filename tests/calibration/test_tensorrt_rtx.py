"""TensorRT-RTX builds the INT8 graphs, without a GPU, and runs every convolution in int8.

The verbose build log holds the finished engine's layer table; there is no other way to look into
an engine on a machine without a GPU.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.graph.qdq import insert_qdq, round_to_nearest
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.ranges.methods import min_max
from resdeploy.calibration.ranges.observers import Extremes
from resdeploy.calibration.weights.centre import centre
from tests.calibration.topologies import TOPOLOGIES, noise, topology

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

Graphs = Callable[[str], onnx.ModelProto]


class _Log(trt.ILogger):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        self.lines.append(message)


def _layer_table(model: onnx.ModelProto, capability: str) -> list[str]:
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    errors = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
    assert parser.parse(model.SerializeToString()), errors
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    sizes = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])
    profile.set_shape("input", (1, *sizes), (2, *sizes), (4, *sizes))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None, log.lines[-5:]
    lines = "\n".join(log.lines).splitlines()
    return [line for line in lines if line.startswith("Name: ") and "LayerType: " in line]


def _convolutions(table: list[str]) -> Iterator[tuple[str, str, str]]:
    """(layer name, type of its input, type of its weight) of every convolution kernel."""
    for row in table:
        if "LayerType: correlation" not in row:
            continue
        name = re.match(r"Name: ([^,]+)", row)
        types = re.search(r"Inputs: .*?Datatype: (\w+).*Constants: .*?Datatype: (\w+)", row)
        assert name, row
        assert types, row
        yield name[1], types[1], types[2]


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["SM86", "SM120"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "resnext50", "mobilenet_v2"])
def test_every_convolution_is_int8(
    float_graph: Graphs, name: str, half: bool, capability: str
) -> None:
    model = float_graph(name)
    placed = plan(model)
    extremes = {tensor: Extremes() for tensor in placed.activations}
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    collect(model, [images], {tensor: [e] for tensor, e in extremes.items()})
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantized = insert_qdq(
        model,
        placed,
        {tensor: min_max(e) for tensor, e in extremes.items()},
        {weight: round_to_nearest(stored[weight]) for weight in placed.weights},
        {},
        half=half,
    )
    kernels = list(_convolutions(_layer_table(quantized, capability)))
    assert len(kernels) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert {(of_input, of_weight) for _, of_input, of_weight in kernels} == {("Int8", "Int8")}


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_topology_builds(name: str, half: bool) -> None:
    model = topology(name)
    extremes = {tensor: Extremes() for tensor in plan(model).activations}
    collect(model, [noise(2, seed=0)], {tensor: [e] for tensor, e in extremes.items()})
    ranges = {tensor: min_max(e) for tensor, e in extremes.items()}
    quantized = insert_qdq(model, plan(model), ranges, {}, {}, half=half)
    kernels = list(_convolutions(_layer_table(quantized, "SM86")))
    assert {(of_input, of_weight) for _, of_input, of_weight in kernels} == {("Int8", "Int8")}


@pytest.mark.slow
def test_centred_ranges_cost_no_layer(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    extremes = {tensor: Extremes() for tensor in plan(model).activations}
    collect(model, [images], {tensor: [e] for tensor, e in extremes.items()})
    ranges = {tensor: min_max(e) for tensor, e in extremes.items()}
    padded = [layer.name for layer in layers(model) if layer.depthwise][:1]
    centred = centre(model, ranges, padded=padded)
    tables = [
        _layer_table(insert_qdq(graph, plan(graph), of, {}, {}), "SM86")
        for graph, of in ((model, ranges), (centred.model, centred.ranges))
    ]
    assert len(tables[1]) == len(tables[0])
    assert {kernel[1:] for kernel in _convolutions(tables[1])} == {("Int8", "Int8")}
