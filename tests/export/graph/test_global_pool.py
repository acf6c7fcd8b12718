"""Each way of writing "average the image, then flatten" becomes the same two nodes."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser, shape_inference

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.graph.edits import finish
from resdeploy.export.graph.global_pool import use_global_pool
from resdeploy.export.graph.onnx_file import operators

Run = Callable[[onnx.ModelProto, Float32s], Float32s]


def graph(body: str, *, opset: int = 17, output: str = "batch, 6", size: str = "4, 5") -> ir.Model:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>'
        f"agraph (float[batch, 6, {size}] x) => (float[{output}] y) {{ {body} }}"
    )
    loaded = ir.from_proto(shape_inference.infer_shapes(model, data_prop=True))
    ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(loaded)
    return loaded


@pytest.mark.parametrize(
    ("body", "opset"),
    [
        ("y = ReduceMean<axes = [2, 3], keepdims = 0>(x)", 17),
        ("y = ReduceMean<axes = [-1, -2], keepdims = 0>(x)", 13),
        ("a = Constant<value_ints = [3, 2]>() y = ReduceMean<keepdims = 0>(x, a)", 18),
        ("m = ReduceMean<axes = [2, 3]>(x) y = Flatten(m)", 17),
        (
            "m = AveragePool<kernel_shape = [4, 5]>(x) "
            "s = Constant<value_ints = [-1, 6]>() y = Reshape(m, s)",
            17,
        ),
        (
            "m = GlobalAveragePool(x) s = Constant<value_ints = [0, -1]>() y = Reshape(m, s)",
            17,
        ),
        ("m = GlobalAveragePool(x) a = Constant<value_ints = [2, 3]>() y = Squeeze(m, a)", 17),
        (
            "m = GlobalAveragePool(x) s = Shape(m) i = Constant<value_int = 0>() "
            "n = Gather(s, i) z = Constant<value_ints = [0]>() u = Unsqueeze(n, z) "
            "r = Constant<value_ints = [-1]>() t = Concat<axis = 0>(u, r) y = Reshape(m, t)",
            17,
        ),
    ],
)
def test_becomes_pool_and_flatten(run: Run, body: str, opset: int) -> None:
    model = graph(body, opset=opset)
    images = np.random.default_rng(0).standard_normal((3, 6, 4, 5), np.float32)
    expected = run(ir.to_proto(model), images)
    done = use_global_pool(model.graph)
    assert done.count > 0 and not done.declined
    result = finish(model)
    assert operators(result) == {"Flatten": 1, "GlobalAveragePool": 1}
    np.testing.assert_allclose(run(result, images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "output", "reason"),
    [
        (
            "y = ReduceMean<axes = [1, 2], keepdims = 0>(x)",
            "batch, 5",
            "averages over axes 1, 2, not over the image",
        ),
        (
            "y = ReduceMean<axes = [1, 2, 3], keepdims = 0>(x)",
            "batch",
            "averages over axes 1, 2, 3, not over the image",
        ),
        ("y = ReduceMean<keepdims = 0>(x)", "", "its axes are computed, or all of them"),
        (
            "f = Flatten(x) y = ReduceMean<axes = [1], keepdims = 0>(f)",
            "batch",
            "reads a tensor of 2 axes, not images",
        ),
        ("y = AveragePool<kernel_shape = [2, 5]>(x)", "batch, 6, 3, 1", None),
        (
            "y = AveragePool<kernel_shape = [4, 5], pads = [1, 0, 0, 0]>(x)",
            "batch, 6, 2, 1",
            "pads the image that it averages",
        ),
        (
            "s = Constant<value_ints = [-1, 60]>() y = Reshape(x, s)",
            "half, 60",
            "its result is not one row per image",
        ),
        (
            "s = Constant<value_ints = [-1, 6, 20]>() y = Reshape(x, s)",
            "batch, 6, 20",
            "its result is not one row per image",
        ),
        (
            "s = Shape(x) i = Constant<value_int = 1>() n = Gather(s, i) "
            "z = Constant<value_ints = [0]>() u = Unsqueeze(n, z) "
            "r = Constant<value_ints = [-1]>() t = Concat<axis = 0>(u, r) y = Reshape(x, t)",
            "six, rest",
            "its result is not one row per image",
        ),
    ],
)
def test_anything_else_is_left_alone_and_said(body: str, output: str, reason: str | None) -> None:
    model = graph(body, output=output)
    before = [node.op_type for node in model.graph]
    done = use_global_pool(model.graph)
    assert done.count == 0 and list(done.declined.values()) == ([reason] if reason else [])
    assert [node.op_type for node in model.graph] == before


def test_a_size_that_is_not_known_is_a_reason() -> None:
    model = graph("y = ReduceMean<axes = [2, 3], keepdims = 0>(x)")
    model.graph.inputs[0].shape = None
    assert use_global_pool(model.graph).declined == {"y": "the size of what it reads is not known"}
