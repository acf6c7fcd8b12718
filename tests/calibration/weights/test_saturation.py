"""The fast x86 kernel is exact on weights that the rule calls safe, whatever the activations."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from resdeploy.calibration.weights.saturation import (
    clip_pairs,
    exact_scale,
    saturates,
    saturating_pairs,
)

_SHAPES = [
    ((32, 3, 3, 3), 1),
    ((64, 3, 7, 7), 1),
    ((24, 96, 1, 1), 1),
    ((16, 5, 1, 1), 1),
    ((128, 4, 3, 3), 32),
    ((64, 1, 3, 3), 64),
    ((32, 16, 3, 3), 1),
]


def _run(values: np.ndarray, group: int, x: np.ndarray, y_scale: float) -> np.ndarray:
    """QLinearConv as ONNX Runtime's optimised graph runs it (x scale 1, zero points 0)."""
    constants = {
        "s": np.float32(1),
        "z": np.uint8(0),
        "w": values,
        "ws": np.ones(len(values), np.float32),
        "wz": np.zeros(len(values), np.int8),
        "ys": np.float32(y_scale),
    }
    node = helper.make_node(
        "QLinearConv", ["x", "s", "z", "w", "ws", "wz", "ys", "z"], ["y"], group=group
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, list(x.shape))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"x": x})
    return np.asarray(result)


def _exact(values: np.ndarray, group: int, x: np.ndarray, y_scale: float) -> np.ndarray:
    """The convolution of one image in exact integers, rounded and clipped to uint8."""
    kernel = values.shape[-1]
    patches = np.lib.stride_tricks.sliding_window_view(
        x[0].astype(np.int64), (kernel, kernel), (1, 2)
    )
    per_group = patches.reshape(group, -1, *patches.shape[1:])
    weights = values.astype(np.int64).reshape(group, -1, *values.shape[1:])
    sums = np.einsum("gchwij,gocij->gohw", per_group, weights)
    scaled: np.ndarray = sums.reshape(-1, *sums.shape[2:]) / y_scale
    clipped: np.ndarray = np.rint(scaled).clip(0, 255)
    return clipped


@pytest.mark.parametrize(("shape", "group"), _SHAPES)
def test_clipped_weights_are_exact_on_extreme_activations(
    shape: tuple[int, ...], group: int
) -> None:
    rng = np.random.default_rng(7)
    values = np.where(
        rng.random(shape) < 0.3, 127 * rng.choice([-1, 1], shape), rng.integers(-127, 128, shape)
    )
    safe = clip_pairs(values.astype(np.int8), group)
    x = rng.choice([0, 200, 255], size=(1, shape[1] * group, 12, 12)).astype(np.uint8)
    assert not saturates(safe, group)
    assert np.abs(safe).max() == 127
    got = _run(safe, group, x, 512.0)[0]
    np.testing.assert_array_equal(got, _exact(safe, group, x, 512.0))


def test_depthwise_has_no_pairs_and_others_pair_within_a_kernel_position() -> None:
    assert saturating_pairs((64, 1, 3, 3), 64)[0].size == 0
    first, second = saturating_pairs((8, 4, 3, 3), 1)
    assert len(first) == 2 * 9
    assert set(second - first) == {9}  # the next channel, same kernel position


def test_exact_scale_lies_between_eight_and_seven_bits() -> None:
    weight = np.random.default_rng(0).standard_normal((16, 64, 3, 3)).astype(np.float32)
    peak = np.abs(weight).reshape(16, -1).max(axis=1)
    scale = exact_scale(weight, 1)
    assert (scale >= (peak / 127).astype(np.float32)).all()
    assert (scale <= peak / 64).all()
    rounded = np.rint(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
    moved = np.abs(clip_pairs(rounded, 1).astype(int) - rounded).max()
    assert moved <= 1


def test_zero_channel_has_scale_one() -> None:
    assert exact_scale(np.zeros((2, 4, 1, 1), np.float32), 1).tolist() == [1.0, 1.0]
