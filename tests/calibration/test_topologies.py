"""Every topology that export reads becomes a legal INT8 graph that keeps the float answers."""

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.graph.topology import wire
from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.repair.recipes import FIRST_METHOD
from resdeploy.calibration.repair.run import logits
from resdeploy.calibration.weights.draft import Draft, rounded
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.metrics.logits import sqnr_db
from resdeploy.deploy.targets import CPU, TARGETS, TENSORRT, Target
from tests.calibration.topologies import TOPOLOGIES, noise, topology

# What the first draft reaches on TensorRT's graph and on the CPU's, less 3 dB: in dB.
_LEAST_DB = {
    "squeezenet": (48, 51),
    "googlenet": (40, 41),
    "inception_v3": (36, 40),
    "densenet": (30, 24),
    "shufflenet_v2": (17, 18),
    "mobilenet_v3": (20, 19),
    "efficientnet": (27, 26),
    "regnet": (33, 33),
    "preact": (35, 23),
    "xception": (30, 27),
    "alexnet": (37, 40),
}


@cache
def _draft(name: str, target: Target) -> Draft:
    model = with_biases(topology(name))
    batches = np.split(noise(32, seed=1), 4)
    observed = gather(model, lambda: batches, 32, threads=1)
    return rounded(Draft(model, target, observed.ranges(FIRST_METHOD, target)), observed.moments)


# one with concatenations, one with gates, one with norms that stay: the others take longer
_QUICK = {"squeezenet", "mobilenet_v3", "preact", "alexnet"}
_EACH = [
    name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TOPOLOGIES
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("name", _EACH)
def test_the_int8_graph_answers_like_the_float_graph(name: str, target: Target) -> None:
    draft = _draft(name, target)
    held = [noise(8, seed=2)]
    expected = logits(topology(name).SerializeToString(), "fp32", held, 1)
    got = logits(draft.graph().SerializeToString(), target.variant, held, 1)
    assert sqnr_db(expected, got) > _LEAST_DB[name][TARGETS.index(target)]


@pytest.mark.parametrize("name", _EACH)
def test_tensorrt_may_read_the_graph(name: str) -> None:
    graph = _draft(name, TENSORRT).graph()
    onnx.checker.check_model(graph, full_check=True)
    wiring = wire(graph)
    stored = {name: numpy_helper.to_array(tensor) for name, tensor in wiring.constants.items()}
    weighted = 0
    for node in wiring.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not stored[node.input[2]].any()  # zero points
            assert (stored[node.input[1]] > 0).all()
            assert stored[node.input[1]].ndim == (1 if node.input[0] in stored else 0)
        if node.op_type in ("Conv", "Gemm"):
            source = wiring.producer.get(node.input[1])
            if source is not None:  # not a float layer
                weighted += 1
                assert len(stored[source.input[1]]) == len(stored[source.input[0]])
                assert wiring.producer[node.input[0]].op_type == "DequantizeLinear"
            assert node.input[2] in stored  # float bias
    convolutions = sum(node.op_type == "Conv" for node in topology(name).graph.node)
    assert weighted >= convolutions


@pytest.mark.parametrize("name", _EACH)
def test_a_residual_sum_reads_one_quantized_operand(name: str) -> None:
    model = topology(name)
    placed = plan(model)
    for node in model.graph.node:
        if node.op_type == "Add":
            quantized = [i for i in (0, 1) if (node.name, i) in placed.edges]
            assert len(quantized) == 1 or node.name in placed.skipped


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("name", ["squeezenet", "googlenet"])
def test_a_concatenation_has_one_scale(name: str, target: Target) -> None:
    model = topology(name)
    placed = plan(model, target=target)
    joined = [node for node in model.graph.node if node.op_type == "Concat"]
    leaders = [
        {placed.same_range.get(tensor, tensor) for tensor in (*node.input, *node.output)}
        for node in joined
        if node.output[0] in placed.activations
    ]
    assert leaders
    assert all(len(group) == 1 for group in leaders)


def test_an_average_pool_reads_the_tensor_that_is_quantized_anyway() -> None:
    model = topology("inception_v3")
    placed = plan(model)
    (pool,) = (node for node in model.graph.node if node.op_type == "AveragePool")
    assert (pool.name, 0) in placed.edges
    assert pool.output[0] in placed.activations
    assert pool.output[0] not in placed.same_range


def test_a_pool_between_two_ranges_keeps_both() -> None:
    """Its input's range serves the other branches, its output's the concatenation."""
    model = topology("inception_v3")
    placed = plan(model)
    (pool,) = (node for node in model.graph.node if node.op_type == "MaxPool")
    assert (pool.name, 0) in placed.edges
    source, result = (placed.same_range.get(t, t) for t in (pool.input[0], pool.output[0]))
    assert source != result


def test_hidden_gemms_are_quantized_and_heads_are_not() -> None:
    model = topology("alexnet")
    placed = plan(model)
    *hidden, head = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert {node.input[1] for node in hidden} <= set(placed.weights)
    assert "head" in placed.skipped[head.name]


def test_a_gemm_behind_a_global_average_stays_float() -> None:
    model = topology("mobilenet_v3")
    placed = plan(model)
    first, _ = (node for node in model.graph.node if node.op_type == "Gemm")
    assert "global averages" in placed.skipped[first.name]


def test_the_cpu_adds_in_float_what_a_batch_norm_reads() -> None:
    model = topology("preact")
    placed = plan(model, target=CPU)
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    assert all("batch normalization" in placed.skipped[node.name] for node in sums)
    assert not any(node.output[0] in placed.activations for node in sums)


def test_a_network_of_matrix_products_is_refused() -> None:
    with pytest.raises(GraphError, match=r"64% of the weights are in matrix products.*use fp16"):
        plan(topology("convnext"))
