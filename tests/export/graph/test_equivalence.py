"""Sameness is proven by structure where possible and by running otherwise, and never by mistake."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph import equivalence as same_function
from resdeploy.export.graph.equivalence import check_same_function


def graph(body: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"agraph (float[batch, 2, 4, 4] input) => (float[batch, K] logits) {{ {body} }}"
    )
    weights = {
        "w": np.arange(8, dtype=np.float32).reshape(4, 2, 1, 1),
        "m": np.arange(12, dtype=np.float32).reshape(4, 3),
        **constants,
    }
    used = {name for node in model.graph.node for name in node.input}
    for name in used & set(weights):
        array = np.asarray(weights[name], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


CONV = "c = Conv(input, w) p = GlobalAveragePool(c) f = Flatten(p) logits = Gemm(f, m)"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes at which graphs were really run."""
    sizes: list[int] = []
    original = same_function._logits

    def counted(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return original(model, images)

    monkeypatch.setattr(same_function, "_logits", counted)
    return sizes


@pytest.mark.parametrize(
    "other",
    [
        CONV,
        CONV.replace("c =", "conv1 =").replace("(c)", "(conv1)"),
        f"i = Identity(input) {CONV.replace('input', 'i')}",
    ],
)
def test_other_names_need_no_run(runs: list[int], other: str) -> None:
    check_same_function(graph(CONV), graph(other))
    assert not runs


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CONV, CONV.replace("p = GlobalAveragePool(c)", "p = ReduceMean<axes = [2, 3]>(c)")),
        (CONV.replace("(f, m)", "(f, m, rows)"),) * 2,
        (f"{CONV.replace('logits =', 'l =')} logits = Add(l, bias)",) * 2,
    ],
)
def test_what_structure_does_not_settle_is_run(runs: list[int], before: str, after: str) -> None:
    more = {"rows": np.ones((1, 3)), "bias": np.ones(3)}
    check_same_function(graph(before, **more), graph(after, **more))
    assert runs == [2, 3]


SINE = (
    "a = Mul(input, u) b = Mul(a, v) s = Sin(b) r = ReduceMean<axes = [2, 3], keepdims = 0>(s) "
    "logits = Identity(r)"
)


def test_what_rounding_does_to_the_network_is_no_difference(runs: list[int]) -> None:
    """Sines of large numbers: a last bit of the input moves them by a thousandth."""
    before = graph(SINE, u=np.array(10_000), v=np.array(1))
    check_same_function(before, graph(SINE, u=np.array(300), v=np.array(100 / 3)))
    assert runs == [2, 3, 2]  # the traced graph once more, with its input nudged


def test_nor_is_it_an_excuse() -> None:
    before = graph(SINE, u=np.array(10_000), v=np.array(1))
    with pytest.raises(GraphError, match=r"expected at most 0\.00"):
        check_same_function(before, graph(SINE, u=np.array(10_000), v=np.array(1.0001)))


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (CONV, CONV, {"w": np.zeros((4, 2, 1, 1))}),
        (CONV, CONV.replace("f =", "r = Neg(p) f =").replace("Flatten(p)", "Flatten(r)"), {}),
        (CONV.replace("(f, m)", "(f, m, rows)"),) * 2 + ({},),
        (f"{CONV.replace('logits =', 'l =')} logits = Softmax<axis = 0>(l)",) * 2 + ({},),
    ],
)
def test_a_difference_or_a_fixed_batch_is_refused(
    before: str, after: str, changed: dict[str, np.ndarray]
) -> None:
    rows = {"rows": np.arange(6, dtype=np.float32).reshape(2, 3)}
    with pytest.raises(GraphError):
        check_same_function(graph(before, **rows), graph(after, **rows, **changed))
