"""The fold keeps the function of every graph, says what it left and why, and proves each layer."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from resdeploy.deploy.errors import GraphError
from resdeploy.export.fold_batchnorm import FoldResult, fold_batchnorm
from resdeploy.export.graph import check_graph, operators

Run = Callable[[onnx.ModelProto, NDArray[np.float32]], NDArray[np.float32]]

CONV = "c = Conv<kernel_shape = [3, 3], group = {group}>(input, conv.weight{bias})"
BN = "y = BatchNormalization<epsilon = 1e-3>(c, gamma, beta, mean, var)"
RNG = np.random.default_rng(0)


def graph(
    body: str,
    *,
    inputs: int = 4,
    outputs: int = 6,
    group: int = 1,
    more: dict[str, NDArray[np.float32]] | None = None,
    result: str = "y",
) -> onnx.ModelProto:
    """A graph written as text, with the weights of one convolution and one batch norm."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"agraph (float[batch, {inputs}, 8, 8] input) => (float[batch, N, H, W] {result})"
        f"{{ {body.replace('.', '__')} }}"  # the text form knows no dots in names
    )
    for node in model.graph.node:
        node.input[:] = [name.replace("__", ".") for name in node.input]
    weights = {
        "conv.weight": RNG.standard_normal((outputs, inputs // group, 3, 3)),
        "gamma": RNG.uniform(0.5, 1.5, outputs),
        "beta": RNG.standard_normal(outputs),
        "mean": RNG.standard_normal(outputs),
        "var": RNG.uniform(0.1, 3, outputs),
        **(more or {}),
    }
    used = {name for node in model.graph.node for name in node.input}
    for name, array in weights.items():
        if name in used:
            model.graph.initializer.append(
                numpy_helper.from_array(np.asarray(array, np.float32), name)
            )
    check_graph(model)
    return model


def fold_and_compare(model: onnx.ModelProto, run: Run) -> FoldResult:
    """Fold; whatever was done, the graph must still compute the same."""
    before = model.SerializeToString()
    result = fold_batchnorm(model)
    assert model.SerializeToString() == before
    check_graph(result.model)
    assert operators(result.model).get("BatchNormalization", 0) == result.left
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    for batch in (1, 2, 5, 8):
        images = np.random.default_rng(batch).standard_normal((batch, channels, 8, 8), np.float32)
        expected = run(model, images)
        error = np.abs(run(result.model, images) - expected).max()
        assert error <= 2e-6 * max(1.0, np.abs(expected).max())
    return result


def body(*, group: int = 1, bias: bool = False) -> str:
    return CONV.format(group=group, bias=", conv.bias" if bias else "") + " " + BN


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "group"), [(4, 6, 1), (4, 6, 2), (4, 4, 4), (4, 8, 4)]
)
def test_folds_plain_grouped_and_depthwise(
    run: Run, inputs: int, outputs: int, group: int, bias: bool
) -> None:
    model = graph(
        body(group=group, bias=bias),
        inputs=inputs,
        outputs=outputs,
        group=group,
        more={"conv.bias": RNG.standard_normal(outputs).astype(np.float32)},
    )
    result = fold_and_compare(model, run)
    assert operators(result.model) == {"Conv": 1}
    assert list(result.model.graph.node[0].input) == ["input", "conv.weight", "conv.bias"]
    assert len(result.model.graph.initializer) == 2
    assert list(result.folded) == ["conv"] and result.folded["conv"] < 1e-6


def test_arithmetic_is_float64() -> None:
    """b - mean cancels here: float32 would lose four of the seven digits."""
    outputs = 2
    model = graph(
        body(bias=True),
        outputs=outputs,
        more={
            "conv.bias": np.full(outputs, 1000.001, np.float32),
            "mean": np.full(outputs, 1000.0, np.float32),
            "gamma": np.full(outputs, 3.0, np.float32),
            "var": np.full(outputs, 0.5, np.float32),
        },
    )
    arrays = {t.name: numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    scale = arrays["gamma"] / np.sqrt(arrays["var"] + np.float64(np.float32(0.001)))
    expected = (arrays["conv.bias"] - arrays["mean"]) * scale + arrays["beta"]
    folded = {t.name: t for t in fold_batchnorm(model).model.graph.initializer}
    got = numpy_helper.to_array(folded["conv.bias"])
    np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_dead_and_huge_channels_are_right(run: Run) -> None:
    gamma = np.array([0, 1e-30, 1e6, -2, 1, 1], np.float32)
    var = np.array([1, 1, 1e-12, 1e12, 1, 1], np.float32)
    model = graph(body(), more={"gamma": gamma, "var": var})
    result = fold_batchnorm(model)
    images = RNG.standard_normal((2, 4, 8, 8)).astype(np.float32)
    expected, got = run(model, images), run(result.model, images)
    largest = np.abs(expected).max(axis=(0, 2, 3), keepdims=True)
    assert (np.abs(got - expected) <= 1e-5 * largest).all()
    assert (got[:, 0] == expected[:, 0]).all()  # only β is left of a dead channel


def test_two_in_a_row_fold_into_the_same_convolution(run: Run) -> None:
    second = "z = BatchNormalization(y, gamma, beta, mean, var)"
    result = fold_and_compare(graph(f"{body()} {second}", result="z"), run)
    assert operators(result.model) == {"Conv": 1}
    assert result.model.graph.output[0].name == "z"


SCALE_OF_3 = {name: np.ones(4, np.float32) for name in ("g4", "b4", "m4", "v4")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{body()} r = Relu(c) y2 = Add(y, r)", "the convolution's output has other consumers"),
        (
            f"{body()} d = Conv(input, conv.weight) y2 = Add(y, d)",
            "the weight conv.weight is shared with another node",
        ),
        ("y2 = BatchNormalization(input, g4, b4, m4, v4)", "follows an input, not a convolution"),
        (
            "r = Relu(input) b = BatchNormalization(r, g4, b4, m4, v4) y2 = Conv(b, conv.weight)",
            "follows Relu, not a convolution",
        ),
        (
            f"{CONV.format(group=1, bias='')} s = Abs(var) "
            "y2 = BatchNormalization(c, gamma, beta, mean, s)",
            "its parameters are not constants",
        ),
        (
            "w = Abs(conv.weight) c = Conv(input, w) "
            "y2 = BatchNormalization(c, gamma, beta, mean, var)",
            "the convolution's weight is not a constant",
        ),
        (
            f"{CONV.format(group=1, bias=', f')} ".replace("c = ", "f = Abs(beta) c = ")
            + BN.replace("y =", "y2 ="),
            "the convolution's bias is not a constant",
        ),
        (
            "c = ConvTranspose(input, t) y2 = BatchNormalization(c, gamma, beta, mean, var)",
            "follows ConvTranspose, not a convolution",
        ),
        (
            f"{CONV.format(group=1, bias='')} y2, m, v = "
            "BatchNormalization<training_mode = 1>(c, gamma, beta, mean, var)",
            "normalizes by the batch's own statistics (training mode)",
        ),
    ],
)
def test_declines_with_a_reason(run: Run, text: str, reason: str) -> None:
    transposed = RNG.standard_normal((4, 6, 3, 3)).astype(np.float32)
    model = graph(text, more={**SCALE_OF_3, "t": transposed}, result="y2")
    result = fold_and_compare(model, run)
    assert list(result.skipped.values()) == [reason]
    assert not result.folded


def test_a_weight_the_caller_may_override_stays(run: Run) -> None:
    model = graph(body())
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("conv.weight", onnx.TensorProto.FLOAT, [6, 4, 3, 3])
    )
    result = fold_batchnorm(model)
    assert list(result.skipped.values()) == ["the convolution's weight is not a constant"]


def test_an_output_seen_from_outside_stays(run: Run) -> None:
    model = graph(body())
    model.graph.output.append(onnx.ValueInfoProto(name="c", type=model.graph.output[0].type))
    result = fold_batchnorm(model)
    assert list(result.skipped.values()) == ["the convolution's output has other consumers"]


def test_overflow_of_float32_stays(run: Run) -> None:
    huge = {"gamma": np.full(6, 1e38, np.float32), "var": np.full(6, 1e-3, np.float32)}
    result = fold_batchnorm(graph(body(), more=huge))
    assert list(result.skipped.values()) == ["folded weights would overflow float32"]


def test_a_bias_shared_by_two_convolutions_is_not_changed_for_the_other(run: Run) -> None:
    text = (
        "c = Conv(input, conv.weight, shared) d = Conv(input, other.weight, shared) "
        f"{BN} y2 = Add(y, d)"
    )
    more = {
        "shared": RNG.standard_normal(6).astype(np.float32),
        "other.weight": RNG.standard_normal((6, 4, 3, 3)).astype(np.float32),
    }
    result = fold_and_compare(graph(text, more=more, result="y2"), run)
    assert list(result.folded) == ["conv"]


@pytest.mark.parametrize("variance", [-1.0, -0.001, float("nan")])
def test_a_variance_that_has_no_root_is_refused(variance: float) -> None:
    var = np.ones(6, np.float32)
    var[4] = np.float32(variance)
    with pytest.raises(GraphError, match="in channel 4 of var, expected above zero"):
        fold_batchnorm(graph(body(), more={"var": var}))
