"""Takes a fixed scale and shift per channel off the network's input, for the preprocessing to do.

Some networks normalize their own input: Keras-style by a batch normalization in front of the first
convolution, torchvision's Inception networks by `transform_input`. With s and t what they do to the
preprocessed pixel x = (p − mean) / std:

    s · x + t = (p − mean') / std'          std' = std / s          mean' = mean − t · std / s

so nothing is lost at the padded edges either: what the first convolution pads is the new input.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from resdeploy.deploy.arrays import Float64s
from resdeploy.export.graph.affine import read_affine, why_not_affine
from resdeploy.export.graph.constants import bypass, float64, is_constant

_CHANNELS = 3


@dataclass(frozen=True)
class InputAffine:
    """s and t of the red, green and blue channel."""

    scale: tuple[float, float, float]
    shift: tuple[float, float, float]

    def mean_and_std(
        self, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """mean' and std'; digits beyond float32's are dropped."""
        pairs = [
            (_rounded(m - t * d / s), _rounded(d / s))
            for m, d, s, t in zip(mean, std, self.scale, self.shift, strict=True)
        ]
        (red, green, blue), (red_std, green_std, blue_std) = zip(*pairs, strict=True)
        return (red, green, blue), (red_std, green_std, blue_std)


@dataclass(frozen=True)
class InputFold:
    """The graph without its input normalization, what that was, and why something stayed.

    `affine` is None where there was nothing to take off; `declined` maps nodes to reasons.
    """

    model: onnx.ModelProto
    affine: InputAffine | None
    declined: dict[str, str]


def fold_input(model: onnx.ModelProto) -> InputFold:
    """Take every leading batch norm, multiplication and addition of constants off the input."""
    edited = ir.from_proto(model)
    graph = edited.graph
    scale, shift = np.ones(_CHANNELS), np.zeros(_CHANNELS)
    taken = False
    declined: dict[str, str] = {}
    while (node := _sole_reader(graph.inputs[0])) is not None:
        step = _as_affine(node, graph.inputs[0])
        if step is None:
            break
        s, t = step
        if not ((s > 0).all() and np.isfinite(s).all() and np.isfinite(t).all()):
            name = node.name or node.op_type
            declined[name] = "turns or drops a colour channel, which no standard deviation does"
            break
        scale, shift, taken = scale * s, shift * s + t, True
        bypass(graph, node, graph.inputs[0])
    if not taken:
        return InputFold(model, None, declined)
    passes.RemoveUnusedNodesPass()(edited)
    affine = InputAffine(_channels(scale), _channels(shift))
    return InputFold(ir.to_proto(edited), affine, declined)


def _sole_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or uses[0].node.outputs[0].is_graph_output():
        return None
    return uses[0].node


def _as_affine(node: ir.Node, source: ir.Value) -> tuple[Float64s, Float64s] | None:
    """(s, t) if the node does s · x + t with constants per channel; None for any other node."""
    if node.op_type == "BatchNormalization":
        if node.inputs[0] is not source or why_not_affine(node) is not None:
            return None
        affine = read_affine(node, node.name or "on the input")
        return affine.scale, affine.shift
    if node.op_type not in ("Mul", "Add", "Sub", "Div"):
        return None
    first = node.inputs[0] is source
    other = node.inputs[1] if first else node.inputs[0]
    if other is source or not is_constant(other) or (not first and node.op_type in ("Sub", "Div")):
        return None
    values = _per_channel(float64(other))
    if values is None:
        return None
    one, zero = np.ones(_CHANNELS), np.zeros(_CHANNELS)
    with np.errstate(divide="ignore"):
        return {
            "Mul": (values, zero),
            "Div": (1 / values, zero),
            "Add": (one, values),
            "Sub": (one, -values),
        }[node.op_type]


def _per_channel(array: Float64s) -> Float64s | None:
    """A constant that acts alike on every pixel, as (3,); None for any other."""
    shape = (1,) * (4 - array.ndim) + array.shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] not in (1, _CHANNELS):
        return None
    return np.broadcast_to(array.reshape(-1), (_CHANNELS,)).copy()


def _channels(values: Float64s) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")
