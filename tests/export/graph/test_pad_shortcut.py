"""Slice + Pad becomes a convolution that gives the same bits; other pads stay."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser, shape_inference

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.graph.edits import Rewrites, finish
from resdeploy.export.graph.onnx_file import operators
from resdeploy.export.graph.pad_shortcut import use_shortcut_convolution

Run = Callable[[onnx.ModelProto, Float32s], Float32s]

SLICE = "Slice(x, starts, ends, axes, steps)"


def graph(
    body: str,
    *,
    steps: tuple[int, ...] = (2, 2),
    axes: tuple[int, ...] = (2, 3),
    starts: tuple[int, ...] = (0, 0),
    pads: tuple[int, ...] = (0, 2, 0, 0, 0, 3, 0, 0),
) -> ir.Model:
    far = (2**63 - 1,) * len(axes)
    constants = "".join(
        f"{name} = Constant<value_ints = {list(values)}>() "
        for name, values in [
            *(("starts", starts), ("ends", far), ("axes", axes), ("steps", steps), ("pads", pads))
        ]
    )
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "agraph (float[batch, 4, 7, 8] x) => (float[N, C, H, W] y) "
        f"{{ {constants} {body} }}"
    )
    loaded = ir.from_proto(shape_inference.infer_shapes(model, data_prop=True))
    ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(loaded)
    return loaded


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (f"s = {SLICE} y = Pad(s, pads)", {}),
        (f"s = {SLICE} y = Pad(s, pads)", {"steps": (3, 1)}),
        (f"s = {SLICE} y = Pad(s, pads)", {"axes": (0, 3), "steps": (1, 2)}),
        (f"s = {SLICE} y = Pad(s, pads)", {"pads": (0, 0, 0, 0, 0, 4, 0, 0)}),
        (f"r = {SLICE} s = Slice(r, starts, ends, axes, steps) y = Pad(s, pads)", {}),
        ("y = Pad(x, pads)", {}),
    ],
)
def test_the_convolution_gives_the_same_bits(
    run: Run, body: str, options: dict[str, tuple[int, ...]]
) -> None:
    model = graph(body, **options)
    images = np.random.default_rng(0).standard_normal((3, 4, 7, 8), np.float32)
    expected = run(ir.to_proto(model), images)
    assert use_shortcut_convolution(model.graph) == Rewrites(1)
    result = finish(model)
    assert operators(result) == {"Conv": 1}
    np.testing.assert_array_equal(run(result, images), expected)


def test_slices_that_others_read_stay(run: Run) -> None:
    model = graph(f"s = {SLICE} p = Pad(s, pads) r = Relu(s) q = Pad(r, pads) y = Add(p, q)")
    images = np.random.default_rng(0).standard_normal((2, 4, 7, 8), np.float32)
    expected = run(ir.to_proto(model), images)
    assert use_shortcut_convolution(model.graph) == Rewrites(2)
    result = finish(model)
    assert operators(result) == {"Conv": 2, "Add": 1, "Relu": 1, "Slice": 1}
    np.testing.assert_array_equal(run(result, images), expected)


@pytest.mark.parametrize(
    ("body", "options", "reason"),
    [
        (
            "y = Pad(x, pads)",
            {"pads": (0, 0, 1, 1, 0, 0, 1, 1)},
            "pads the image, not only the channels",
        ),
        (
            "y = Pad(x, pads)",
            {"pads": (0, 1, 0, 1, 0, 1, 0, 0)},
            "pads the image, not only the channels",
        ),
        ("y = Pad(x, pads)", {"pads": (0, -1, 0, 0, 0, 2, 0, 0)}, "cuts off instead of padding"),
        ('y = Pad<mode = "edge">(x, pads)', {}, "pads with the mode 'edge', not with zeros"),
        (
            "one = Constant<value_float = 1.0>() y = Pad(x, pads, one)",
            {},
            "pads with a value that is not known to be zero",
        ),
        (
            "p = Abs(pads) y = Pad(x, p)",
            {},
            "its paddings are computed, or given for some axes only",
        ),
    ],
)
def test_other_pads_stay_and_say_why(
    body: str, options: dict[str, tuple[int, ...]], reason: str
) -> None:
    model = graph(body, **options)
    assert use_shortcut_convolution(model.graph) == Rewrites(0, {"y": reason})


@pytest.mark.parametrize(
    "options", [{"starts": (1, 0)}, {"axes": (1, 3)}, {"steps": (-1, 2), "starts": (0, 0)}]
)
def test_only_whole_strided_slices_are_absorbed(
    run: Run, options: dict[str, tuple[int, ...]]
) -> None:
    model = graph(f"s = {SLICE} y = Pad(s, pads)", **options)
    images = np.random.default_rng(0).standard_normal((2, 4, 7, 8), np.float32)
    expected = run(ir.to_proto(model), images)
    use_shortcut_convolution(model.graph)
    result = finish(model)
    assert operators(result)["Slice"] == 1
    np.testing.assert_array_equal(run(result, images), expected)
