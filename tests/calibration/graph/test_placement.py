"""Q/DQ placement equals NVIDIA's reference placement, and follows the same rules elsewhere."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

from resdeploy.calibration.graph.placement import QuantPlan, plan
from resdeploy.calibration.graph.topology import wire
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.targets import CPU

Graphs = Callable[[str], onnx.ModelProto]

# What nvidia-modelopt's reference graph calls the pooling and flattening we export.
_SAME = {"ReduceMean": "GlobalAveragePool", "Reshape": "Flatten"}
_FAMILIES = ("resnet18", "resnext50", "mobilenet_v2", "cifar_resnet8")


def _placement(model: onnx.ModelProto, placed: QuantPlan) -> list[tuple[str, tuple[bool, ...]]]:
    """(operator, which inputs are quantized) in graph order; constants of Clip left out."""
    rows = []
    for node in model.graph.node:
        inputs = 1 if node.op_type == "Clip" else len(node.input)
        flags = tuple((node.name, index) in placed.edges for index in range(inputs))
        rows.append((node.op_type, flags))
    return rows


def test_resnet18_equals_the_reference_placement(float_graph: Graphs) -> None:
    golden = json.loads(Path(__file__).with_name("qdq_placement_resnet18.json").read_text())
    expected = []
    for operator, flags in golden["nodes"]:
        inputs = 1 if operator in _SAME else len(flags)
        expected.append((_SAME.get(operator, operator), tuple(flags[:inputs])))
    model = float_graph("resnet18")
    placed = plan(model)
    got = _placement(model, placed)
    # Within a block the order of the two branches is the exporter's choice.
    assert Counter(got) == Counter(expected)
    backbone = ("MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm")
    assert [row for row in got if row[0] in backbone] == [r for r in expected if r[0] in backbone]
    assert len(placed.activations) == 21
    assert len(placed.weights) == 20


@pytest.mark.slow
@pytest.mark.parametrize("name", _FAMILIES)
def test_rules_for_tensorrt(float_graph: Graphs, name: str) -> None:
    model = float_graph(name)
    placed = plan(model)
    wiring = wire(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert set(placed.weights) == {node.input[1] for node in convolutions}
    for node in convolutions:
        assert {(node.name, 0), (node.name, 1)} <= placed.edges
        assert (node.name, 2) not in placed.edges
    for node in model.graph.node:
        read = [index for index in range(len(node.input)) if (node.name, index) in placed.edges]
        if node.op_type == "Add":
            assert len(read) == 1
            float_source = wiring.producer[node.input[1 - read[0]]]
            assert float_source.op_type == "Conv"  # fuses with the addition
        if node.op_type in ("Relu", "Clip", "GlobalAveragePool", "Flatten", "Gemm"):
            assert not read
    for tensor in placed.activations:  # shared: a conv output is quantized only as a skip
        source = wiring.producer.get(tensor)
        if source is not None and source.op_type == "Conv":
            readers = {node.op_type for node, _ in wiring.consumers[tensor]}
            assert readers & {"Add", "Conv"}


def test_mobilenet_has_104_pairs_and_shares_the_block_input(float_graph: Graphs) -> None:
    model = float_graph("mobilenet_v2")
    placed = plan(model)
    assert len(placed.activations) + len(placed.weights) == 104
    for node in model.graph.node:
        if node.op_type == "Add":
            skip = next(i for i in (0, 1) if (node.name, i) in placed.edges)
            readers = {reader.op_type for reader, _ in wire(model).consumers[node.input[skip]]}
            assert "Conv" in readers


@pytest.mark.parametrize("name", _FAMILIES)
def test_cpu_quantizes_every_convolution_and_addition(float_graph: Graphs, name: str) -> None:
    model = float_graph(name)
    placed = plan(model, target=CPU)
    for node in model.graph.node:
        if node.op_type in ("Conv", "Add"):
            assert {(node.name, 0), (node.name, 1)} <= placed.edges
    assert set(plan(model).activations) <= set(placed.activations)


def test_pool_shares_the_range_of_its_output(float_graph: Graphs) -> None:
    placed = plan(float_graph("resnet18"))
    ((source, result),) = placed.same_range.items()
    assert source.startswith("conv1")
    assert result.startswith("max_pool")


def test_float_layers_are_left_alone_and_named(float_graph: Graphs) -> None:
    model = float_graph("resnet18")
    placed = plan(model, float_nodes=["layer1.0.conv1", "layer1.1.add"])
    assert not any(name in ("layer1.0.conv1", "layer1.1.add") for name, _ in placed.edges)
    assert placed.skipped["layer1.0.conv1"] == "left float on request"
    assert placed.skipped["layer1.1.add"] == "left float on request"
    assert "layer1.0.conv1.weight" not in placed.weights
    assert "head" in placed.skipped["fc"]


def test_unknown_float_layer(float_graph: Graphs) -> None:
    with pytest.raises(GraphError, match=r"layer 'layer9\.conv' cannot be left float"):
        plan(float_graph("cifar_resnet8"), float_nodes=["layer9.conv"])
