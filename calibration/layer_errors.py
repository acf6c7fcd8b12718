"""Finds the layer where an INT8 graph parts from the float graph it was made from.

For every Conv, Gemm and Add that both graphs have, over some pictures, with z the float graph's
output of the layer and Σ over all its values:

    whole  10 log10(Σ z² / Σ (y - z)²)    y in the INT8 graph as it is: errors of all layers so far
    own    the same with y computed from the float graph's inputs of this layer: its error alone
    share  of the layer's own noise-to-signal ratio in the sum over all layers

For `own` the INT8 graph is cut behind every layer, and what follows is fed with the float values.
Both graphs compute what they say (no fused integer kernels). In a graph whose weights were
equalized, channels of inner tensors are scaled on purpose, and that counts as error here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from resdeploy.deploy.compare import decibels
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.ort import first_line, session_options

_LAYERS = ("Conv", "Gemm", "Add")
_FED = "__float"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerError:
    """One layer's errors in dB (larger is better) and its share of all layers' own errors."""

    name: str
    op_type: str
    whole_db: float
    own_db: float
    share: float


def layer_errors(float_graph: Path, int8_graph: Path, inputs: Floats) -> list[LayerError]:
    """The layers in graph order, for (N, 3, H, W) float32 inputs, one picture at a time.

    Raises:
        GraphError: the graphs have no layer in common, or one cannot be run.
    """
    original, quantized = onnx.load(float_graph), onnx.load(int8_graph)
    made = {tensor for node in quantized.graph.node for tensor in node.output}
    layers = [n for n in original.graph.node if n.op_type in _LAYERS and n.output[0] in made]
    if not layers:
        raise GraphError(f"{int8_graph}: has no layer of {float_graph}: quantize it again")
    tensors = [node.output[0] for node in layers]
    sums = _sums(original, quantized, tensors, inputs)
    ratios = [noise / signal if signal else math.inf for signal, _, noise in sums]
    total = sum(ratio for ratio in ratios if math.isfinite(ratio)) or 1.0
    return [
        LayerError(
            name=node.name or node.output[0],
            op_type=node.op_type,
            whole_db=decibels(signal, whole),
            own_db=decibels(signal, own),
            share=ratio / total if math.isfinite(ratio) else 0.0,
        )
        for node, (signal, whole, own), ratio in zip(layers, sums, ratios, strict=True)
    ]


def culprit(errors: Sequence[LayerError]) -> LayerError:
    """The layer with the largest share; of equals the first."""
    return max(errors, key=lambda error: error.share)


def _sums(
    original: onnx.ModelProto, quantized: onnx.ModelProto, tensors: list[str], inputs: Floats
) -> list[tuple[float, float, float]]:
    """Σ z², Σ (y - z)² as it is, and Σ (y - z)² of the layer alone, per tensor."""
    given = original.graph.input[0].name
    runs = [_session(_tapped(original, tensors)), _session(_tapped(quantized, tensors))]
    alone = _session(_cut(quantized, tensors))
    fed = {argument.name for argument in alone.get_inputs()}
    found = np.zeros((len(tensors), 3))
    for picture in inputs:
        values = {given: picture[None]}
        expected, got = (run.run(tensors, values) for run in runs)
        feeds = {f"{name}{_FED}": z for name, z in zip(tensors, expected, strict=True)} | values
        own = alone.run(tensors, {name: feeds[name] for name in feeds if name in fed})
        for place, (z, y, o) in enumerate(zip(expected, got, own, strict=True)):
            exact = z.astype(np.float64)
            found[place] += ((exact**2).sum(), ((y - exact) ** 2).sum(), ((o - exact) ** 2).sum())
    return [(signal, whole, own) for signal, whole, own in found.tolist()]


def _tapped(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy that also puts out `tensors`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {value.name for value in copy.graph.output}
    copy.graph.output.extend(_float(name) for name in tensors if name not in held)
    return copy


def _cut(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy in which every reader of `tensors` reads a graph input instead."""
    copy = _tapped(model, tensors)
    read: Mapping[str, str] = {name: f"{name}{_FED}" for name in tensors}
    used = set()
    for node in copy.graph.node:
        for place, name in enumerate(node.input):
            if name in read:
                node.input[place] = read[name]
                used.add(name)
    copy.graph.input.extend(_float(read[name]) for name in tensors if name in used)
    return copy


def _float(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(
            model.SerializeToString(), session_options("int8"), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own classes derived from Exception
        raise GraphError(f"the graph cannot be looked into: {first_line(error)}") from error
