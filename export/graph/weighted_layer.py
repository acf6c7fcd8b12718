"""A convolution or linear layer as a matrix, whatever node computes it.

At one output position a convolution, grouped or not, is a matrix (outputs, patch) times the patch
its group sees; a Gemm is that matrix itself. Folding works on the rows of this matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from resdeploy.deploy.arrays import Float32s, Float64s
from resdeploy.export.graph.constants import (
    float64,
    is_constant,
    new_initializer,
    set_constant,
)

_PROOF_PATCHES = 4


@dataclass(frozen=True)
class Layer:
    """The weights of a node in float64.

    Attributes:
        name: of the weight, less ".weight".
        rows: (outputs, inputs of one group x kernel positions); bias: (outputs,), zeros for none.
        groups: of a convolution; 1 for a Gemm.
        kernel: number of kernel positions per input channel.
        transposed: the node stores the matrix the other way round (Gemm without transB).
        shape: of the stored weight.
    """

    name: str
    rows: Float64s
    bias: Float64s
    groups: int
    kernel: int
    transposed: bool
    shape: tuple[int, ...]

    def answer(self, patches: Float64s) -> Float64s:
        """(patch, n) -> (outputs, n)."""
        return self.rows @ patches + self.bias[:, None]

    def scaled_outputs(self, scale: Float64s) -> Float64s:
        """The rows, each times its own factor."""
        return self.rows * scale[:, None]

    def per_input(self, values: Float64s) -> Float64s:
        """A value per input channel, laid out as `rows`: (outputs, inputs of a group x kernel)."""
        by_group = np.repeat(values.reshape(self.groups, -1), self.kernel, axis=1)
        return np.repeat(by_group, len(self.rows) // self.groups, axis=0)


def why_not_layer(node: ir.Node) -> str | None:
    """Why this node's weights cannot take up a normalization, or None if they can."""
    if node.op_type not in ("Conv", "Gemm"):
        return f"follows {node.op_type}, not a convolution"
    weight = node.inputs[1]
    kind = "convolution" if node.op_type == "Conv" else "linear layer"
    if weight is None or not is_constant(weight):
        return f"the {kind}'s weight is not a constant"
    if len(weight.uses()) > 1:
        return f"the weight {weight.name} is shared with another node"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not is_constant(bias):
        return f"the {kind}'s bias is not a constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"the weight {weight.name} is {weight.dtype}, not float32"
    if node.op_type == "Gemm":
        factors = (node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0))
        if factors != (1.0, 1.0) or node.attributes.get_int("transA", 0) != 0:
            return "the linear layer scales or transposes what it reads"
        if bias is not None and bias.shape is not None and len(bias.shape) != 1:
            return "the linear layer's bias is not one value per output"
    return None


def has_padding(node: ir.Node) -> bool:
    """Whether a convolution reads zeros beyond the edges of its input; a Gemm never does."""
    if node.op_type != "Conv":
        return False
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return True
    pads = node.attributes.get("pads")
    return pads is not None and any(pads.as_ints())


def read_layer(node: ir.Node) -> Layer:
    """The matrix of a node that `why_not_layer` has no objection to."""
    weight = node.inputs[1]
    assert weight is not None
    stored = float64(weight)
    transposed = node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)
    rows = stored.T if transposed else stored.reshape(len(stored), -1)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return Layer(
        name=(weight.name or node.name or "?").removesuffix(".weight"),
        rows=rows,
        bias=float64(bias) if bias is not None else np.zeros(len(rows)),
        groups=node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1,
        kernel=prod(stored.shape[2:]),
        transposed=transposed,
        shape=tuple(stored.shape),
    )


def write_layer(
    graph: ir.Graph, node: ir.Node, layer: Layer, rows: Float64s, bias: Float64s
) -> tuple[Float32s, Float32s] | None:
    """Store new weights, rounded to float32; None and no change if they overflow.

    Returns the rows and bias as stored.
    """
    if not (fits_float32(rows) and fits_float32(bias)):
        return None
    stored_rows, stored_bias = rows.astype(np.float32), bias.astype(np.float32)
    weight = node.inputs[1]
    assert weight is not None
    matrix = np.ascontiguousarray(stored_rows.T) if layer.transposed else stored_rows
    set_constant(weight, matrix.reshape(layer.shape))
    old = node.inputs[2] if len(node.inputs) > 2 else None
    if old is not None and len(old.uses()) == 1:
        set_constant(old, stored_bias)
    else:
        value = new_initializer(graph, f"{layer.name}.bias", stored_bias)
        node.resize_inputs(3)
        node.replace_input_with(2, value)
    return stored_rows, stored_bias


def fits_float32(array: Float64s) -> bool:
    """Whether every value stays finite in float32."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32)).all())


def relative_error(
    stored: tuple[Float32s, Float32s], expected: Callable[[Float64s], Float64s], inputs: int
) -> float:
    """Largest difference of the stored layer from `expected` on random patches (inputs, 4),
    relative to the largest output. Any vector of that length is an input that can occur."""
    patches = np.random.default_rng(0).standard_normal((inputs, _PROOF_PATCHES))
    wanted = expected(patches)
    rows, bias = (part.astype(np.float64) for part in stored)
    got = rows @ patches + bias[:, None]
    largest = float(np.abs(wanted).max(initial=0.0))
    return float(np.abs(got - wanted).max(initial=0.0)) / largest if largest else 0.0
