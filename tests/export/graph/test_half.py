"""The half graph is legal, keeps float32 ends, agrees with float, and keeps float what it must."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.half import to_half
from resdeploy.export.graph.onnx_file import check_graph, operators
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace

Build = Callable[[str], nn.Module]
Run = Callable[[onnx.ModelProto, Float32s], Float32s]


def two_layers(**weights: float) -> onnx.ModelProto:
    """conv → clip → conv → add, every weight of a layer the same number."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[batch, 2, 4, 4] input) => (float[batch, 2, 4, 4] logits)
        <float low = {0}, float high = {6}, float[2, 2, 1, 1] one, float[2, 2, 1, 1] two,
         float[batch, 2, 4, 4] a, float[batch, 2, 4, 4] b, float[batch, 2, 4, 4] c>
        {
            [conv1] a = Conv(input, one)
            [clip] b = Clip(a, low, high)
            [conv2] c = Conv(b, two)
            [add] logits = Add(c, input)
        }"""
    )
    for name in ("one", "two"):
        array = np.full((2, 2, 1, 1), weights.get(name, 1.0), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    check_graph(model)
    return model


ONES = np.ones((1, 2, 4, 4), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet", "resnext", "mobilenet_v2", "cifar", "headless", "preact"]
)
def test_every_family_in_half_agrees_with_float(network: Build, run: Run, name: str) -> None:
    model = simplify(fold_batchnorm(trace(network(name), input_size_px=32)).model)
    before = model.SerializeToString()
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
    result = to_half(model, images)
    assert model.SerializeToString() == before
    assert not result.kept_float
    check_graph(result.model)
    onnx.checker.check_model(result.model, full_check=True)
    assert operators(result.model) == {**operators(model), "Cast": 2}
    assert all(t.data_type == onnx.TensorProto.FLOAT16 for t in result.model.graph.initializer)
    assert result.model.graph.input == model.graph.input
    assert result.model.graph.output == model.graph.output
    expected = run(model, images)
    for batch in (1, 2, 5, 8):
        error = np.abs(run(result.model, images[:batch]) - expected[:batch]).max()
        assert error <= 5e-3 * np.abs(expected).max()
    names = {node.name for node in model.graph.node}
    assert names <= {node.name for node in result.model.graph.node}


def test_overflow_keeps_what_writes_and_reads_the_tensor_in_float(run: Run) -> None:
    model = two_layers(two=2000.0)
    result = to_half(model, 2 * ONES)
    reason = "c reaches 2.4e+04, too near to the end of half, 65504"
    assert not result.kept_float
    result = to_half(model, 3 * ONES)
    assert result.kept_float == {"conv2": reason, "add": reason}
    images = np.random.default_rng(0).standard_normal((4, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, images), run(model, images), rtol=2e-3)


@pytest.mark.parametrize(
    ("weights", "kept", "reason"),
    [
        ({"two": 20000.0}, {"conv2", "add"}, "c reaches 8e+04"),
        ({"two": 7e4}, {"conv2", "add"}, "c reaches 2.8e+05"),
        ({"one": 1e-7}, {"conv1", "clip", "conv2", "add"}, "a reaches only 2e-07"),
        ({"one": 1e-7, "two": 1e7}, {"conv1", "clip", "conv2"}, "a reaches only 2e-07"),
    ],
)
def test_a_scan_of_samples_finds_what_half_cannot_hold(
    run: Run, weights: dict[str, float], kept: set[str], reason: str
) -> None:
    model = two_layers(**weights)
    result = to_half(model, ONES)
    check_graph(result.model)
    onnx.checker.check_model(result.model, full_check=True)
    assert set(result.kept_float) <= kept and "conv2" in result.kept_float
    assert any(text.startswith(reason) for text in result.kept_float.values())
    expected = run(model, ONES)
    np.testing.assert_allclose(run(result.model, ONES), expected, rtol=2e-3)


def test_weights_alone_are_judged_without_samples() -> None:
    assert set(to_half(two_layers(two=7e4), None).kept_float) == {"conv2"}
    assert set(to_half(two_layers(one=1e-7), None).kept_float) == {"conv1"}
    assert not to_half(two_layers(), None).kept_float


def test_a_dead_channel_does_not_keep_its_layer_in_float() -> None:
    """Real MobileNetV2 checkpoints have channels of 1e-30, which add nothing to their tensor."""
    model = two_layers()
    weight = np.ones((2, 2, 1, 1), np.float32)
    weight[1] = 1e-30
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "one"))
    assert not to_half(model, ONES).kept_float


def test_a_batch_norm_whose_scale_half_cannot_hold_stays_in_float() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[batch, 2, 4, 4] input) => (float[batch, 2, 4, 4] logits)
    <float[2] zero = {0, 0}, float[2] one = {1, 1}, float[batch, 2, 4, 4] a>
    {
        [bn] a = BatchNormalization(input, scale, zero, zero, one)
        [relu] logits = Relu(a)
    }"""
    for scale, kept in ((1e-3, set()), (1e-9, {"bn"}), (7e4, {"bn"})):
        model = parser.parse_model(text)
        array = np.full(2, scale, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, "scale"))
        assert set(to_half(model, None).kept_float) == kept


def test_an_operator_that_is_not_known_stays_in_float(run: Run) -> None:
    model = two_layers()
    model.graph.node[1].CopyFrom(onnx.helper.make_node("Softplus", ["a"], ["b"], name="softplus"))
    result = to_half(model, ONES)
    assert result.kept_float == {"softplus": "Softplus is not known to be safe in half"}
    assert operators(result.model)["Cast"] == 4
    np.testing.assert_allclose(run(result.model, ONES), run(model, ONES), rtol=2e-3)


def test_a_bound_read_in_both_types_stays_a_constant() -> None:
    model = two_layers(two=20000.0)
    model.graph.node.append(onnx.helper.make_node("Clip", ["c", "low", "high"], ["d"], name="end"))
    model.graph.node[3].input[0] = "d"
    model.graph.value_info.append(onnx.ValueInfoProto(name="d", type=model.graph.output[0].type))
    last = model.graph.node.pop(3)
    model.graph.node.append(last)
    result = to_half(model, ONES).model
    constants = {tensor.name for tensor in result.graph.initializer}
    clips = [node for node in result.graph.node if node.op_type == "Clip"]
    assert len(clips) == 2 and all(set(node.input[1:]) <= constants for node in clips)


def test_a_tensor_of_unknown_type_is_refused() -> None:
    model = two_layers()
    del model.graph.value_info[:]
    with pytest.raises(GraphError, match="the type of tensor a is not stated"):
        to_half(model, None)


def test_samples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(GraphError, match=r"does not run on the samples of shape \(1, 5, 4, 4\)"):
        to_half(two_layers(), np.zeros((1, 5, 4, 4), np.float32))


@pytest.mark.slow
@pytest.mark.realdata
def test_a_real_network_answers_the_same_in_half(shared_data: Path, run: Run) -> None:
    module = MobileNetV2(num_classes=5)
    checkpoint = shared_data / "checkpoints" / "flowers_mobilenet_v2.pth"
    module.load_state_dict(torch.load(checkpoint, weights_only=True))
    model = simplify(fold_batchnorm(trace(module.eval(), input_size_px=224)).model)
    paths = sorted((shared_data / "flowers" / "val").glob("*/*"))[::6]
    images = np.stack([read_input(path, named("imagenet")) for path in paths])
    result = to_half(model, images[:8])
    assert not result.kept_float
    expected, got = run(model, images), run(result.model, images)
    assert len(images) > 60
    assert (expected.argmax(1) == got.argmax(1)).all()
    assert np.abs(got - expected).max() <= 1e-2 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnext", "mobilenet_v2", "cifar", "preact"])
def test_tensorrt_rtx_builds_the_strongly_typed_graph(network: Build, name: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    model = simplify(fold_batchnorm(trace(network(name), input_size_px=32)).model)
    logger = trt.Logger(trt.Logger.ERROR)
    for graph in (model, to_half(model, None).model):
        builder = trt.Builder(logger)
        network_definition = builder.create_network(0)
        onnx_parser = trt.OnnxParser(network_definition, logger)
        assert onnx_parser.parse(graph.SerializeToString()), onnx_parser.get_error(0).desc()
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        profile = builder.create_optimization_profile()
        profile.set_shape("input", (1, 3, 32, 32), (4, 3, 32, 32), (8, 3, 32, 32))
        assert config.add_optimization_profile(profile) == 0
        assert builder.build_serialized_network(network_definition, config) is not None
