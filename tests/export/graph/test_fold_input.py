"""What a network does to its own input goes into the preprocessing, exactly."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.fold_input import fold_input
from resdeploy.export.graph.onnx_file import operators

Run = Callable[[onnx.ModelProto, Float32s], Float32s]

RNG = np.random.default_rng(0)
CONV = "y = Conv<pads = [1, 1, 1, 1]>({}, w)"
BN = "b = BatchNormalization<epsilon = 1e-3>(x, g, be, m, v) "
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def graph(body: str, **more: Float32s) -> onnx.ModelProto:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"agraph (float[batch, 3, 6, 6] x) => (float[batch, N, H, W] y) {{ {body} }}"
    )
    constants: dict[str, Float32s] = {
        "w": RNG.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "g": np.array([0.5, 1, 2], np.float32),
        "be": np.array([0.1, -0.2, 0.3], np.float32),
        "m": np.array([-0.3, 0, 0.2], np.float32),
        "v": np.array([0.5, 1, 2], np.float32),
        "s": np.array([0.458, 0.448, 0.45], np.float32).reshape(1, 3, 1, 1),
        "t": np.array([-0.03, -0.088, -0.188], np.float32).reshape(3, 1, 1),
        "two": np.array(2, np.float32),
        **more,
    }
    used = {name for node in model.graph.node for name in node.input}
    for name in used & set(constants):
        model.graph.initializer.append(numpy_helper.from_array(constants[name], name))
    return model


@pytest.mark.parametrize(
    "body",
    [
        BN + CONV.format("b"),
        "m1 = Mul(x, s) a = Add(m1, t) " + CONV.format("a"),
        "d = Div(x, two) u = Sub(d, t) m1 = Mul(two, u) " + CONV.format("m1"),
        BN + "a = Add(b, t) " + CONV.format("a"),
    ],
)
def test_new_preprocessing_into_the_new_graph_is_old_into_old(run: Run, body: str) -> None:
    model = fold_batchnorm(graph(body)).model
    result = fold_input(model)
    assert result.affine is not None and not result.declined
    assert operators(result.model) == {"Conv": 1} and len(result.model.graph.initializer) == 1
    mean, std = result.affine.mean_and_std(MEAN, STD)
    pixels = RNG.uniform(0, 1, (2, 3, 6, 6)).astype(np.float32)

    def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> Float32s:
        m, d = (np.array(part, np.float32).reshape(1, 3, 1, 1) for part in (mean, std))
        return (pixels - m) / d

    expected = run(model, normalized(MEAN, STD))
    got = run(result.model, normalized(mean, std))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_transform_input_of_torchvision_is_mean_and_std_of_one_half() -> None:
    scale = (np.array(STD) / 0.5).astype(np.float32).reshape(1, 3, 1, 1)
    shift = ((np.array(MEAN) - 0.5) / 0.5).astype(np.float32).reshape(1, 3, 1, 1)
    result = fold_input(
        graph("m1 = Mul(x, s) a = Add(m1, t) " + CONV.format("a"), s=scale, t=shift)
    )
    assert result.affine is not None
    mean, std = result.affine.mean_and_std(MEAN, STD)
    assert {*mean, *std} == {0.5}


@pytest.mark.parametrize(
    "body",
    [
        CONV.format("x"),
        BN + "c = Relu(x) a = Add(b, c) " + CONV.format("a"),  # the bare input is read as well
        "a = Relu(x) " + CONV.format("a"),
        "a = Sub(two, x) " + CONV.format("a"),
        "a = Mul(x, x) " + CONV.format("a"),
    ],
)
def test_anything_else_stays(body: str) -> None:
    model = graph(body)
    result = fold_input(model)
    assert result.affine is None and result.model is model and not result.declined


def test_a_scale_that_no_standard_deviation_has_is_declined() -> None:
    model = graph(BN + CONV.format("b"), g=np.array([1, 0, 1], np.float32))
    result = fold_input(model)
    assert result.affine is None
    assert list(result.declined.values()) == [
        "turns or drops a colour channel, which no standard deviation does"
    ]
