"""Sampled patches are the convolution's own: W·u + b is what ONNX Runtime computes."""

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper

from resdeploy.calibration.graph.layers import Layer, layers, with_biases
from resdeploy.calibration.observe.moments import (
    WIDEST,
    Moments,
    in_passes,
    moment_bytes,
    sample_patches,
)

_RANDOM = np.random.default_rng(3)


def _conv(shape: tuple[int, int, int, int], group: int, attributes: str) -> onnx.ModelProto:
    channels = shape[1] * group
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    one (float[batch, {channels}, 9, 10] input) => (float[batch, o, h, w] output)
    {{ [conv] output = Conv <group = {group}, {attributes}> (input, weight) }}
    """)
    weight = _RANDOM.normal(size=shape).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    return model


@pytest.mark.parametrize(
    ("shape", "group", "attributes"),
    [
        ((6, 4, 3, 3), 1, "pads = [1, 1, 1, 1], strides = [2, 2]"),
        ((4, 1, 3, 3), 4, "pads = [0, 1, 2, 1]"),
        ((6, 2, 3, 3), 2, "pads = [2, 2, 2, 2], dilations = [2, 2]"),
        ((5, 4, 1, 1), 1, "strides = [1, 2]"),
    ],
)
def test_patches_give_the_convolution(
    shape: tuple[int, int, int, int], group: int, attributes: str
) -> None:
    model = _conv(shape, group, attributes)
    (layer,) = layers(model)
    x = _RANDOM.normal(size=(2, shape[1] * group, 9, 10)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"input": x})
    positions = expected.shape[2] * expected.shape[3]
    patches = sample_patches(layer, x, np.random.default_rng(0))
    weight = numpy_helper.to_array(model.graph.initializer[0])
    got = (layer.rows(weight) @ patches).reshape(shape[0], 2, -1)
    if got.shape[2] == positions:
        np.testing.assert_allclose(got, expected.reshape(2, shape[0], -1).swapaxes(0, 1), atol=1e-5)
    else:  # a sample: every value of it is among the convolution's
        nearest = np.abs(got[0, 0][:, None] - expected[0, 0].ravel()).min(axis=1)
        assert nearest.max() < 1e-5 and got.shape[2] == min(64, max(16, 2 * layer.columns))


def test_covariances_of_wide_layers_are_float32() -> None:
    for columns, dtype in ((1024, np.float64), (1100, np.float32)):
        (layer,) = layers(_conv((2, columns, 1, 1), 1, "strides = [1, 1]"))
        moments = Moments(layer)
        x = _RANDOM.normal(2.0, 1.0, size=(3, columns, 5, 5)).astype(np.float32)
        moments.update(x)
        covariance = moments.covariance
        assert covariance is not None and covariance.dtype == dtype
        seen = x.transpose(1, 0, 2, 3).reshape(columns, -1)
        np.testing.assert_allclose(covariance[0], np.cov(seen, bias=True), atol=1e-5)


def test_moments_are_mean_and_covariance_over_all_batches() -> None:
    (layer,) = layers(_conv((4, 2, 1, 1), 2, "strides = [3, 3]"))
    x = _RANDOM.normal(2.0, 1.0, size=(6, 4, 9, 10)).astype(np.float32)
    moments = Moments(layer)
    for batch in np.split(x, 3):
        moments.update(batch)
    seen = x[:, :, ::3, ::3].transpose(1, 0, 2, 3).reshape(2, 2, -1)
    np.testing.assert_allclose(moments.mean, seen.mean(axis=2), atol=1e-5)
    assert moments.covariance is not None
    for group in range(2):
        np.testing.assert_allclose(
            moments.covariance[group], np.cov(seen[group], bias=True), atol=1e-5
        )


def test_moments_take_only_as_many_images_as_asked() -> None:
    (layer,) = layers(_conv((4, 2, 1, 1), 2, "strides = [2, 2]"))
    x = _RANDOM.normal(size=(6, 4, 9, 10)).astype(np.float32)
    some, first = Moments(layer, images=3), Moments(layer)
    some.update(x)
    first.update(x[:3])
    assert some.count == first.count
    np.testing.assert_array_equal(some.covariance, first.covariance)


def test_passes_keep_memory_bounded_and_order() -> None:
    (wide,) = layers(_conv((4, 8, 3, 3), 1, "strides = [1, 1]"))
    (slim,) = layers(_conv((4, 1, 3, 3), 4, "strides = [1, 1]"))
    parts = in_passes([slim, wide, slim, slim], moment_bytes(wide))
    assert [len(part) for part in parts] == [1, 1, 2]


def test_a_layer_without_a_bias_gets_zeros() -> None:
    model = with_biases(_conv((4, 1, 3, 3), 4, "strides = [1, 1]"))
    (layer,) = layers(model)
    assert layer.bias == "conv.bias"
    onnx.checker.check_model(model)


def test_a_small_variance_beside_a_large_mean_survives() -> None:
    (layer,) = layers(_conv((4, 2, 1, 1), 2, "strides = [1, 1]"))
    x = _RANDOM.normal(300.0, 1e-3, size=(8, 4, 9, 10)).astype(np.float32)
    moments = Moments(layer)
    for batch in np.split(x, 4):
        moments.update(batch)
    assert moments.covariance is not None
    variances = np.einsum("gkk->gk", moments.covariance)
    assert (variances > 0.5e-6).all() and (variances < 2e-6).all()
    np.testing.assert_allclose(moments.mean, 300.0, atol=1e-3)


def test_of_a_very_wide_layer_only_the_mean_is_taken() -> None:
    gemm = Layer("fc", "Gemm", "x", "y", "w", "b", (2, WIDEST + 1, 1, 1))
    moments = Moments(gemm)
    x = _RANDOM.normal(size=(5, WIDEST + 1)).astype(np.float32)
    moments.update(x)
    np.testing.assert_allclose(moments.mean[0], x.mean(axis=0), atol=1e-6)
    assert moments.covariance is None
    assert moment_bytes(gemm) == 0
