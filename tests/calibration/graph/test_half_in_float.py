"""The float32 graph of a graph in half gives the same bits, and works in float32 throughout."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.half_in_float import half_in_float
from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.weights.draft import Draft, rounded
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.targets import TENSORRT


def _images(model: onnx.ModelProto, count: int) -> Float32s:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return np.random.default_rng(2).standard_normal((count, 3, size, size), np.float32)


def _in_half(model: onnx.ModelProto, images: Float32s) -> onnx.ModelProto:
    observed = gather(model, lambda: [images], len(images), threads=1)
    ranges = observed.ranges("minmax", TENSORRT)
    draft = rounded(Draft(model, TENSORRT, ranges), observed.moments, rounding="nearest", threads=1)
    return draft.graph(half=True)


@pytest.mark.parametrize("name", ["cifar_resnet8", "resnet18", "resnext50", "mobilenet_v2"])
def test_logits_are_the_same_to_the_bit(
    float_graph: Callable[[str], onnx.ModelProto], name: str
) -> None:
    model = with_biases(float_graph(name))
    images = _images(model, 2)
    half = _in_half(model, images)
    in_float = half_in_float(half)
    onnx.checker.check_model(in_float)
    with (
        OrtSession(half.SerializeToString(), variant="int8-fp16", threads=1) as wanted,
        OrtSession(in_float.SerializeToString(), variant="int8-fp16", threads=1) as got,
    ):
        np.testing.assert_array_equal(got.run(images), wanted.run(images))


def test_only_what_is_quantized_and_weights_are_rounded(
    float_graph: Callable[[str], onnx.ModelProto],
) -> None:
    model = with_biases(float_graph("cifar_resnet8"))
    half = _in_half(model, _images(model, 2))
    graph = half_in_float(half).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds
    to_half = [n for n in graph.node if n.op_type == "Cast" and n.attribute[0].i == 10]
    quantizers = [n for n in graph.node if n.op_type == "QuantizeLinear"]
    stored = {tensor.name for tensor in graph.initializer}
    weights = [n for n in graph.node if n.op_type.startswith("Dequ") and n.input[0] in stored]
    assert len(to_half) == len(quantizers) + len(weights) > len(weights) > 0
