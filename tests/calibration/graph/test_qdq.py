"""The written graphs say what the plan and the integers say, for each target."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.graph.qdq import (
    QuantizedWeight,
    insert_qdq,
    rescale,
    round_to_nearest,
)
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.ranges.methods import min_max
from resdeploy.calibration.ranges.observers import Extremes
from resdeploy.calibration.ranges.ranges import Range, affine_uint8, symmetric_scale
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import CalibrationError
from resdeploy.deploy.ort import session_options
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.targets import CPU, TARGETS, TENSORRT

Graphs = Callable[[str], onnx.ModelProto]

_VARIANTS: tuple[Variant, ...] = ("int8", "int8-fp16", "int8-cpu")
_FAMILIES = ("resnet18", "resnext50", "mobilenet_v2", "cifar_resnet8")


def _images(model: onnx.ModelProto) -> Float32s:
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return np.random.default_rng(5).standard_normal((4, 3, size, size), np.float32)


def _ranges(model: onnx.ModelProto) -> dict[str, Range]:
    tensors = {*plan(model).activations, *plan(model, target=CPU).activations}
    extremes = {tensor: Extremes() for tensor in tensors}
    collect(model, [_images(model)], {tensor: [e] for tensor, e in extremes.items()})
    return {tensor: min_max(e) for tensor, e in extremes.items()}


def _quantized(
    model: onnx.ModelProto,
    variant: Variant,
    *,
    seven_bits: bool = False,
    biases: Mapping[str, Float32s] | None = None,
    float_weights: bool = False,
) -> onnx.ModelProto:
    placed = plan(model, target=CPU if variant == "int8-cpu" else TENSORRT)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {
        name: round_to_nearest(numpy_helper.to_array(stored[name])) for name in placed.weights
    }
    if seven_bits:
        weights = {name: rescale(w, w.scale * np.float32(127 / 63)) for name, w in weights.items()}
    return insert_qdq(
        model,
        placed,
        _ranges(model),
        weights,
        biases or {},
        half=variant == "int8-fp16",
        float_weights=float_weights,
    )


def _run(
    model: onnx.ModelProto, images: Float32s, *, as_written: bool = True, save: Path | None = None
) -> Float32s:
    options = session_options("int8" if as_written else "int8-cpu", 1)
    if save is not None:
        options.optimized_model_filepath = str(save)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {"input": images})
    return np.asarray(logits)


def _sqnr_db(reference: Float32s, other: Float32s) -> float:
    return float(
        10 * np.log10((reference**2).mean() / max(((reference - other) ** 2).mean(), 1e-12))
    )


@pytest.mark.parametrize("name", _FAMILIES)
@pytest.mark.parametrize("variant", _VARIANTS)
def test_graph_is_valid_and_close_to_float(
    float_graph: Graphs, name: str, variant: Variant
) -> None:
    model = float_graph(name)
    quantized = _quantized(model, variant)
    onnx.checker.check_model(quantized, full_check=True)
    images = _images(model)
    # Random weights: MobileNetV2 loses most, but far from the 0 dB of a wrong scale.
    assert _sqnr_db(_run(model, images), _run(quantized, images)) > 14
    opset = {entry.domain: entry.version for entry in quantized.opset_import}[""]
    assert opset == (19 if variant == "int8-fp16" else 17)


@pytest.mark.parametrize("name", _FAMILIES)
def test_onnxruntime_runs_the_cpu_graph_in_integers(
    float_graph: Graphs, name: str, tmp_path: Path
) -> None:
    model = float_graph(name)
    quantized = _quantized(model, "int8-cpu", seven_bits=True)
    fast = _run(quantized, _images(model), as_written=False, save=tmp_path / "optimised.onnx")
    count = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    before = Counter(node.op_type for node in model.graph.node)
    assert count["QLinearConv"] == before["Conv"]
    assert count["QLinearAdd"] == before["Add"]
    assert count["QuantizeLinear"] == 1  # the input
    assert count["DequantizeLinear"] == 1  # in front of the float head
    assert count["Conv"] == count["FusedConv"] == count["Add"] == 0
    # 7 bits cannot saturate: the kernel computes what the graph says, up to rounding of ties.
    assert _sqnr_db(_run(quantized, _images(model)), fast) > 28


def test_tensorrt_graph_is_legal(float_graph: Graphs) -> None:
    quantized = _quantized(float_graph("mobilenet_v2"), "int8")
    stored = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert stored[node.input[1]].dtype == np.float32
            assert (stored[node.input[1]] > 0).all()
            assert stored[node.input[2]].dtype == np.int8
            assert not stored[node.input[2]].any()
        if node.op_type == "Conv":
            assert node.input[1].endswith("_dequantized")
            assert stored[node.input[2]].dtype == np.float32
    assert not any(
        t.name.endswith(".weight") and "features" in t.name for t in stored_float(quantized)
    )


def stored_float(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Initializers of more than one axis that are float: weights that were not quantized."""
    return [t for t in model.graph.initializer if t.data_type == 1 and len(t.dims) > 1]


def test_float_weights_compute_the_same(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    integers = _run(_quantized(model, "int8"), _images(model))
    floats = _quantized(model, "int8", float_weights=True)
    assert sum(node.op_type == "QuantizeLinear" for node in floats.graph.node) == len(
        plan(model).activations
    ) + len(plan(model).weights)
    np.testing.assert_allclose(_run(floats, _images(model)), integers, rtol=1e-4, atol=1e-5)


def test_given_biases_replace_the_old_ones(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    for variant in _VARIANTS:
        before = _run(_quantized(model, variant), _images(model))
        head = next(node for node in model.graph.node if node.op_type == "Gemm")
        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        moved = (stored[head.input[2]] + 2).astype(np.float32)
        after = _run(_quantized(model, variant, biases={head.name: moved}), _images(model))
        np.testing.assert_allclose(after, before + 2, atol=0.01)


_TINY = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 4, 4] input) => (float[N, 2, 4, 4] logits)
<float[2, 2, 1, 1] w, float[2] b> {
  [conv] y = Conv(input, w, b)
  [relu] logits = Relu(y)
}
"""


def _tiny(weight: Float32s, bias: Float32s) -> onnx.ModelProto:
    model = onnx.parser.parse_model(_TINY)
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(weight.reshape(2, 2, 1, 1), "w"),
            numpy_helper.from_array(bias, "b"),
        ]
    )
    return model


def test_values_are_exactly_those_of_the_formula() -> None:
    weight = np.array([[0.5, -1.27], [0.01, 0.02]], np.float32)
    bias = np.array([0.1, -0.2], np.float32)
    model = _tiny(weight, bias)
    x = np.random.default_rng(0).uniform(-2, 3, (2, 2, 4, 4)).astype(np.float32)
    chosen = Range(-2.0, 3.0)
    got = _run(insert_qdq(model, plan(model), {"input": chosen}, {}, {}), x)
    scale = symmetric_scale(chosen)
    read = (np.rint(x / scale).clip(-128, 127) * scale).astype(np.float32)
    stored = round_to_nearest(weight).dequantize()
    expected = np.maximum(np.einsum("oc,nchw->nohw", stored, read) + bias[:, None, None], 0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", _VARIANTS)
def test_dead_channels_keep_their_bias(variant: Variant) -> None:
    """Weights of a dead MobileNetV2 channel are 0 or nearly so; what is left is its bias."""
    for tiny in (0.0, 1e-12, 1e-6):
        model = _tiny(
            np.array([[tiny, tiny / 2], [1, 0.5]], np.float32), np.array([3.25, 0.5], np.float32)
        )
        placed = plan(model, target=CPU if variant == "int8-cpu" else TENSORRT)
        half = variant == "int8-fp16"
        quantized = insert_qdq(model, placed, {"input": Range(0, 1)}, {}, {}, half=half)
        onnx.checker.check_model(quantized, full_check=True)
        x = np.random.default_rng(0).random((1, 2, 4, 4), np.float32)
        got = _run(quantized, x)
        np.testing.assert_allclose(got[:, 0], 3.25, atol=2e-3)
        np.testing.assert_allclose(got[:, 1], x[:, 0] + x[:, 1] / 2 + 0.5, atol=0.02)
        for tensor in quantized.graph.initializer:
            if tensor.name.endswith("_scale"):
                assert (numpy_helper.to_array(tensor) > 0).all()


def test_always_zero_activation_is_exact() -> None:
    model = _tiny(np.eye(2, dtype=np.float32), np.ones(2, np.float32))
    for target in TARGETS:
        placed = plan(model, target=target)
        quantized = insert_qdq(model, placed, {"input": Range(0, 0)}, {}, {})
        got = _run(quantized, np.zeros((1, 2, 4, 4), np.float32))
        np.testing.assert_array_equal(got, np.ones((1, 2, 4, 4), np.float32))


def test_ranges_of_another_graph_are_refused(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    with pytest.raises(CalibrationError, match="belongs to another graph"):
        insert_qdq(model, plan(model), {"elsewhere": Range(0, 1)}, {}, {})


def test_weights_and_forms_that_the_plan_does_not_have_are_refused(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    for_cpu = plan(model, target=CPU)
    with pytest.raises(ValueError, match="no half for cpu"):
        insert_qdq(model, for_cpu, {}, {}, {}, half=True)
    with pytest.raises(ValueError, match="float weights cannot be written for cpu"):
        insert_qdq(model, for_cpu, {}, {}, {}, float_weights=True)
    stray = {"stray": QuantizedWeight(np.zeros((1, 1), np.int8), np.ones(1, np.float32))}
    with pytest.raises(ValueError, match="'stray' is not quantized"):
        insert_qdq(model, plan(model), {}, stray, {})


def test_rescale_is_the_identity_on_the_same_scale() -> None:
    weight = round_to_nearest(np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("f4"))
    same = rescale(weight, weight.scale)
    np.testing.assert_array_equal(same.values, weight.values)
    coarser = rescale(weight, weight.scale * 2)
    np.testing.assert_allclose(
        coarser.dequantize(), weight.dequantize(), atol=float(weight.scale.max()) * 1.01
    )


def test_the_model_given_is_not_changed(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    before = model.SerializeToString(deterministic=True)
    for variant in _VARIANTS:
        _quantized(model, variant)
    assert model.SerializeToString(deterministic=True) == before


def test_uint8_grid_holds_zero() -> None:
    for chosen in (Range(-1, 3), Range(0.5, 3), Range(-3, -0.5), Range(0, 0)):
        scale, zero = affine_uint8(chosen)
        assert 0 <= zero <= 255
        assert (0 - zero) * scale <= min(chosen.low, 0) + scale / 2
        assert (255 - zero) * scale >= max(chosen.high, 0) - scale / 2
