"""A batch normalization as what it is at inference: one scale and one shift per channel.

With γ, β, μ, σ², ε its scale, shift, running mean, running variance and epsilon (Ioffe & Szegedy
2015, section 3.1):

    BN(x) = γ · (x − μ) / √(σ² + ε) + β = s · x + t
    s = γ / √(σ² + ε)
    t = β − s · μ
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from resdeploy.deploy.arrays import Float64s
from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph.constants import (
    float64,
    is_constant,
    new_initializer,
    set_constant,
)

_DEFAULT_EPSILON = 1e-5  # of the operator


@dataclass(frozen=True)
class Affine:
    """γ, β, μ, σ² + ε of one normalization, float64, shape (channels,)."""

    gamma: Float64s
    beta: Float64s
    mean: Float64s
    variance: Float64s

    @property
    def scale(self) -> Float64s:
        """s, shape (channels,)."""
        return self.gamma / np.sqrt(self.variance)

    @property
    def shift(self) -> Float64s:
        """t, shape (channels,)."""
        return self.beta - self.scale * self.mean

    def step_by_step(self, rows: Float64s) -> Float64s:
        """The normalization of (channels, …) as its definition writes it."""
        column = (-1, *[1] * (rows.ndim - 1))
        gamma, beta, mean, variance = (
            part.reshape(column) for part in (self.gamma, self.beta, self.mean, self.variance)
        )
        return gamma * (rows - mean) / np.sqrt(variance) + beta


def read_affine(bn: ir.Node, name: str) -> Affine:
    """The parameters of a normalization, all of them constants.

    Raises:
        GraphError: σ² + ε is not above zero in some channel.
    """
    gamma, beta, mean, variance = (float64(value) for value in bn.inputs[1:5])
    epsilon = bn.attributes.get("epsilon")
    variance = variance + (epsilon.as_float() if epsilon is not None else _DEFAULT_EPSILON)
    broken = np.flatnonzero(~(variance > 0))
    if broken.size:
        value = bn.inputs[4]
        raise GraphError(
            f"batch norm {name} cannot be folded: running variance + epsilon is "
            f"{variance[broken[0]]:g} in channel {broken[0]} of {value.name if value else '?'}, "
            "expected above zero: the checkpoint is damaged or its eps is another"
        )
    return Affine(gamma, beta, mean, variance)


def why_not_affine(bn: ir.Node) -> str | None:
    """The reason a normalization is not one fixed scale and shift, or None if it is."""
    training = bn.attributes.get("training_mode")
    if training is not None and training.as_int():
        return "normalizes by the batch's own statistics (training mode)"
    if any(output.uses() or output.is_graph_output() for output in bn.outputs[1:]):
        return "its running statistics are used as outputs"
    if not all(is_constant(value) for value in bn.inputs[1:5]):
        return "its parameters are not constants"
    return None


def write_as_scale_and_shift(graph: ir.Graph, bn: ir.Node, affine: Affine) -> None:
    """Keep the node, but as s · x + t: γ = s, β = t, μ = 0, σ² = 1, ε = 0.

    A variance of 1e-9 is nothing in float16, while s and t are as large as activations are.
    """
    with np.errstate(over="ignore"):
        scale, shift = affine.scale.astype(np.float32), affine.shift.astype(np.float32)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return
    parts = (scale, shift, np.zeros_like(scale), np.ones_like(scale))
    for index, part in enumerate(parts, start=1):
        value = bn.inputs[index]
        assert value is not None and value.name
        if len(value.uses()) == 1:
            set_constant(value, part)
        else:
            bn.replace_input_with(index, new_initializer(graph, value.name, part))
    bn.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.0)
