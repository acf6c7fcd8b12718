"""A graph that is run in pieces gives the tensors of the whole graph."""

from collections.abc import Callable

import numpy as np
import onnx

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.weights.partial_run import PartialRun
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.inference.ort_session import OrtSession

Graphs = Callable[[str], onnx.ModelProto]


def _batches(model: onnx.ModelProto, images: int) -> list[Float32s]:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return [np.random.default_rng(5).standard_normal((images, 3, size, size), np.float32)]


def test_pieces_give_the_tensors_of_the_whole(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    batches = _batches(model, 8)
    run = PartialRun(model, batches, 1)
    for layer in layers(model):
        run.at(layer.input)
    (got,) = run.at(model.graph.output[0].name)
    with OrtSession(model.SerializeToString(), threads=1) as session:
        np.testing.assert_allclose(got.floats(), session.run(batches[0]), atol=1e-5)


def test_a_change_holds_from_the_layer_it_is_made_for(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    first, second = layers(model)[:2]
    run = PartialRun(model, _batches(model, 8), 1)
    run.at(first.input)
    silence: dict[str, Float32s] = {
        first.weight: np.zeros(first.shape, np.float32),
        first.bias: np.full(first.shape[0], 0.5, np.float32),
    }
    (read,) = run.at(second.input, silence)
    np.testing.assert_array_equal(read.floats(), 0.5)


def test_a_node_reads_its_first_input(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    run = PartialRun(model, _batches(model, 1), 1)
    for layer in layers(model):
        assert run.read_by(layer.name) == layer.input
