"""The fold keeps the function of every graph, says what it left and why, and proves each layer."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph.fold_batchnorm import FoldResult, fold_batchnorm
from resdeploy.export.graph.onnx_file import check_graph, operators

Run = Callable[[onnx.ModelProto, Float32s], Float32s]

CONV = "c = Conv<kernel_shape = [3, 3], group = {group}>(input, conv.weight{bias})"
BN = "y = BatchNormalization<epsilon = 1e-3>(c, gamma, beta, mean, var)"
RNG = np.random.default_rng(0)


def graph(
    body: str,
    *,
    inputs: int = 4,
    outputs: int = 6,
    group: int = 1,
    more: dict[str, Float32s] | None = None,
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
            "r = Relu(input) b = BatchNormalization(r, g4, b4, m4, v4) "
            "y2 = Conv<pads = [1, 1, 1, 1]>(b, conv.weight)",
            "follows Relu, not a convolution; and the convolution behind it pads with zeros, which "
            "its shift would change",
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


PREACTIVATION = (
    "c1 = Conv<pads = [1, 1, 1, 1]>(input, conv1) "
    "n1 = BatchNormalization(c1, gamma, beta, mean, var) r1 = Relu(n1) "
    "c2 = Conv<pads = [1, 1, 1, 1]>(r1, conv2) "
    "n2 = BatchNormalization(c2, gamma, beta, mean, var) r2 = Relu(n2) "
    "c3 = Conv<pads = [1, 1, 1, 1]>(r2, conv3) a1 = Add(c3, c1) "
    "n3 = BatchNormalization(a1, gamma, beta, mean, var) r3 = Relu(n3) "
    "c4 = Conv(r3, conv4) c5 = Conv(r3, conv5) a2 = Add(c4, c5) "
    "n4 = BatchNormalization(a2, gamma, beta, mean, var) y2 = Relu(n4)"
)


def preactivation(text: str = PREACTIVATION) -> onnx.ModelProto:
    sizes = {"conv1": (6, 4, 3, 3), **{f"conv{n}": (6, 6, 3, 3) for n in (2, 3, 4, 5)}}
    more = {
        name: (RNG.standard_normal(shape) / 5).astype(np.float32) for name, shape in sizes.items()
    }
    return graph(text, more=more, result="y2")


def test_preactivation_folds_inside_blocks_and_behind_sums_of_two_convolutions(run: Run) -> None:
    result = fold_and_compare(preactivation(), run)
    # n2 goes into conv2; n4 into conv4 and conv5, whose sum nothing else reads
    assert list(result.folded) == ["conv2", "conv4", "conv5"]
    assert max(result.folded.values()) < 1e-6
    assert list(result.skipped.values()) == [
        "the convolution's output has other consumers",
        "leads a block: part of the sum it reads has other consumers",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("r3 = Relu(n3)", "s = Abs(a1) r3 = Add(n3, s)"), "leads a block: the sum it reads goes"),
        (("a1 = Add(c3, c1)", "a1 = Add(c3, r2)"), "leads a block: part of the sum it reads comes"),
        (("a1 = Add(c3, c1)", "a1 = Add(c3, c3)"), "leads a block: part of the sum it reads has"),
    ],
)
def test_a_leading_batch_norm_stays_with_its_reason(
    run: Run, change: tuple[str, str], reason: str
) -> None:
    result = fold_and_compare(preactivation(PREACTIVATION.replace(*change)), run)
    assert any(said.startswith(reason) for said in result.skipped.values())


POOLED = (
    f"{CONV.format(group=1, bias='')} p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], "
    "strides = [2, 2]>(c) y2 = BatchNormalization(p, gamma, beta, mean, var)"
)


def test_folds_through_a_max_pool_where_every_scale_is_positive(run: Run) -> None:
    result = fold_and_compare(graph(POOLED, result="y2"), run)
    assert operators(result.model) == {"Conv": 1, "MaxPool": 1}


@pytest.mark.parametrize(
    ("text", "gamma", "reason"),
    [
        (POOLED, -1.0, "follows a max pool, and its scale is not positive in every channel"),
        (POOLED, 0.0, "follows a max pool, and its scale is not positive in every channel"),
        (f"{POOLED} r = Relu(p) y3 = Add(y2, r)", 1.0, "follows MaxPool, not a convolution"),
        (f"{POOLED} r = Relu(c)", 1.0, "the convolution's output has other consumers"),
    ],
)
def test_a_max_pool_in_between_has_its_conditions(
    run: Run, text: str, gamma: float, reason: str
) -> None:
    values = np.array([1, 1, gamma, 1, 1, 1], np.float32)
    model = graph(text, more={"gamma": values}, result="y3" if "y3" in text else "y2")
    assert list(fold_and_compare(model, run).skipped.values()) == [reason]


def test_what_stays_is_one_scale_and_one_shift() -> None:
    """A variance of 1e-9 is lost in float16; the scale it makes is not."""
    small = {"v4": np.full(4, 1e-9, np.float32), "g4": np.full(4, 2e-4, np.float32)}
    text = "r = Relu(input) y2 = BatchNormalization<epsilon = 1e-12>(r, g4, b4, m4, v4)"
    model = graph(text, more={**SCALE_OF_3, **small}, result="y2")
    folded = {t.name: t for t in fold_batchnorm(model).model.graph.initializer}
    s = 2e-4 / np.sqrt(1e-9 + 1e-12)
    for name, value in {"g4": s, "b4": 1 - s, "m4": 0, "v4": 1}.items():
        np.testing.assert_allclose(numpy_helper.to_array(folded[name]), value, rtol=1e-6)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_folds_in_front_of_a_convolution_without_padding(run: Run, group: int) -> None:
    text = (
        "r = Relu(input) b = BatchNormalization(r, g4, b4, m4, v4) "
        f"y2 = Conv<group = {group}>(b, conv.weight, conv.bias)"
    )
    outputs = 8
    more = {
        **{name: RNG.uniform(0.5, 2, 4).astype(np.float32) for name in SCALE_OF_3},
        "conv.bias": RNG.standard_normal(outputs).astype(np.float32),
    }
    model = graph(text, outputs=outputs, group=group, more=more, result="y2")
    result = fold_and_compare(model, run)
    assert operators(result.model) == {"Relu": 1, "Conv": 1}
    assert result.folded["conv"] < 1e-6


HEAD = (
    "p = GlobalAveragePool(input) f = Flatten(p) b1 = BatchNormalization(f, g4, b4, m4, v4) "
    "{one} r = Relu(l1) b2 = BatchNormalization(r, gamma, beta, mean, var) {two}"
)
WITH_BIAS = ("l1 = Gemm<transB = 1>(b1, fc1, bias)", "y2 = Gemm(b2, fc2)")
WITHOUT = ("t = Transpose(fc1) l1 = MatMul(b1, t)", "u = Transpose(fc3) y2 = MatMul(b2, u)")


@pytest.mark.parametrize(("one", "two"), [WITH_BIAS, WITHOUT], ids=["gemm", "matmul"])
def test_a_head_of_batch_norms_and_linear_layers_folds_whole(run: Run, one: str, two: str) -> None:
    """fastai's: batch norm before each linear layer, no bias."""
    more = {
        **{name: RNG.uniform(0.5, 2, 4).astype(np.float32) for name in SCALE_OF_3},
        "fc1": RNG.standard_normal((6, 4)).astype(np.float32),
        "fc2": RNG.standard_normal((6, 3)).astype(np.float32),
        "fc3": RNG.standard_normal((3, 6)).astype(np.float32),
        "bias": RNG.standard_normal(6).astype(np.float32),
    }
    model = graph(HEAD.format(one=one, two=two), more=more, result="y2")
    del model.graph.output[0].type.tensor_type.shape.dim[2:]
    result = fold_and_compare(model, run)
    assert operators(result.model) == {"Flatten": 1, "Gemm": 2, "GlobalAveragePool": 1, "Relu": 1}
    assert len(result.folded) == 2


def test_a_batch_norm_behind_a_linear_layer_folds(run: Run) -> None:
    text = (
        "p = GlobalAveragePool(input) f = Flatten(p) l = Gemm<transB = 1>(f, fc1) "
        "y2 = BatchNormalization(l, gamma, beta, mean, var)"
    )
    more = {"fc1": RNG.standard_normal((6, 4)).astype(np.float32)}
    model = graph(text, more=more, result="y2")
    del model.graph.output[0].type.tensor_type.shape.dim[2:]
    result = fold_and_compare(model, run)
    assert operators(result.model)["Gemm"] == 1 and result.left == 0


@pytest.mark.parametrize("variance", [-1.0, -0.001, float("nan")])
def test_a_variance_that_has_no_root_is_refused(variance: float) -> None:
    var = np.ones(6, np.float32)
    var[4] = np.float32(variance)
    with pytest.raises(GraphError, match="in channel 4 of var, expected above zero"):
        fold_batchnorm(graph(body(), more={"var": var}))


def test_a_layer_remembers_what_its_batch_norm_says_of_it(run: Run) -> None:
    model = graph(f"{CONV.format(group=1, bias='')} {BN}")
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (found,) = fold_and_compare(model, run).statistics.items()
    assert found[0] == "conv"
    np.testing.assert_allclose(found[1].mean, values["beta"], rtol=1e-6)
    np.testing.assert_allclose(found[1].std, np.abs(values["gamma"]), rtol=1e-6)


def test_what_was_folded_in_front_says_nothing_of_the_output(run: Run) -> None:
    body = "c = BatchNormalization<epsilon = 1e-3>(input, gamma, beta, mean, var)"
    model = graph(
        f"{body} y = Conv<kernel_shape = [3, 3]>(c, conv.weight)",
        more={name: np.ones(4, np.float32) for name in ("gamma", "beta", "mean", "var")},
    )
    result = fold_and_compare(model, run)
    assert result.folded and not result.statistics
