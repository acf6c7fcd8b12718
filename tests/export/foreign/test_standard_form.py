"""Whatever the ends of a foreign graph look like, the same logits for any batch."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from resdeploy.export.foreign.original import OriginalGraph
from resdeploy.export.foreign.read import read_foreign
from resdeploy.export.foreign.standard_form import standard_form
from resdeploy.export.graph.fold_input import InputAffine
from resdeploy.export.graph.onnx_file import opset
from resdeploy.export.graph.simplify import simplify
from tests.export.foreign.conftest import Draw, by_hand

_NHWC = "[t] images = Transpose <perm = [0, 3, 1, 2]> (pixels)"
_FIXED = "[s] s = Constant <value = int64[2] {1, -1}> ()\n[f] f = Reshape (g, s)"
_FIXED_BY_SIZE = "[s] s = Constant <value = int64[2] {1, 6}> ()\n[f] f = Reshape (g, s)"

# the ends of a graph, as `draw` takes them
_ENDS: dict[str, dict[str, Any]] = {
    "plain": {"after": "", "answers": "float[N, 4] z"},
    "softmax": {},
    "channels last": {"image": "float[N, 16, 16, 3] pixels", "before": _NHWC},
    "one image": {"image": "float[1, 3, 16, 16] images", "answers": "float[1, 4] p"},
    "fixed reshape": {"image": "float[1, 3, 16, 16] images", "flat": _FIXED},
    "fixed sizes": {"image": "float[1, 3, 16, 16] images", "flat": _FIXED_BY_SIZE},
    "operator set 11": {"opset": 11, "after": "[p] p = Softmax <axis = 1> (z)"},
    "operator set 21": {"opset": 21},
    "our names inside": {
        "image": "float[N, 3, 16, 16] pixels",
        "before": "[a] input = Relu (pixels)\n[b] logits = Neg (pixels)\n"
        "[c] o = Relu (logits)\n[d] images = Sub (input, o)",
    },
}


@pytest.mark.parametrize("name", _ENDS)
def test_the_logits_are_those_computed_by_hand(draw: Draw, name: str) -> None:
    foreign = read_foreign(draw(**_ENDS[name]))
    images = np.random.default_rng(0).standard_normal((5, 3, 16, 16), np.float32)
    expected = by_hand(images)
    with OriginalGraph(foreign) as original:
        np.testing.assert_allclose(original.run(images), expected, rtol=0, atol=1e-5)
    model = simplify(standard_form(foreign))
    assert 13 <= opset(model) <= 20
    assert [node.op_type for node in model.graph.node].count("Softmax") == 0
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        (logits,) = session.run(["logits"], {"input": images[:count]})
        np.testing.assert_allclose(logits, expected[:count], rtol=0, atol=1e-5)


def test_exchanges_of_axes_cancel_out(draw: Draw) -> None:
    path = draw("float[N, 16, 16, 3] pixels", before=_NHWC)
    nodes = simplify(standard_form(read_foreign(path))).graph.node
    assert "Transpose" not in {node.op_type for node in nodes}


def test_a_graph_that_ends_in_maps_of_one_pixel_is_flattened(draw: Draw) -> None:
    path = draw(after="", answers="float[N, 6, 1, 1] g")
    foreign = read_foreign(path)
    assert not foreign.flat and foreign.classes == 6
    model = simplify(standard_form(foreign))
    onnx.checker.check_model(model)
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 6]


def test_what_was_taken_off_the_input_is_undone_before_the_original_is_asked(draw: Draw) -> None:
    foreign = read_foreign(draw())
    images = np.random.default_rng(1).standard_normal((3, 3, 16, 16), np.float32)
    affine = InputAffine((2.0, 0.5, 4.0), (1.0, -1.0, 0.25))
    scale, shift = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (affine.scale,
                                                                         affine.shift))  # fmt: skip
    with OriginalGraph(foreign, affine) as original:
        got = original.run(images * scale + shift)
    np.testing.assert_allclose(got, by_hand(images), rtol=0, atol=1e-5)
