"""Finds the layer where an INT8 graph parts from the float graph it was made from.

For every Conv, Gemm and Add that both graphs have, over some images, with z the float graph's
output of the layer and Σ over all its values:

    whole  10 log10(Σ z² / Σ (y - z)²)    y in the INT8 graph as it is: errors of all layers so far
    own    the same with y computed from the float graph's inputs of this layer: its error alone

For `own` the INT8 graph is cut behind every layer, and what follows is fed with the float values.
Both graphs compute what they say (no fused integer kernels).

A centred layer's output (`weights.centre`) is compared, and fed, with its constant put back.

A sound layer's own signal is more than 5 dB above its own noise. Repairs such as equalization,
though, scale channels of inner tensors on purpose and undo it in the next layer: both look unsound
from exact input, but `whole` there or behind is above 15 dB, and they are excused.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from resdeploy.calibration.graph.topology import Wiring, wire
from resdeploy.deploy.arrays import Float32s, Float64s
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.metrics.layer_error import UNSOUND_DB, LayerError
from resdeploy.deploy.metrics.logits import decibels
from resdeploy.deploy.ort import open_graph, session_options
from resdeploy.deploy.reading import StrPath

_LAYERS = ("Conv", "Gemm", "Add")
_FED = "__float"
_RECOVERED_DB = 15.0


def layer_errors(float_graph: StrPath, int8_graph: StrPath, inputs: Float32s) -> list[LayerError]:
    """The layers in graph order, for (N, 3, H, W) float32 inputs, one image at a time.

    Raises:
        GraphError: the graphs have no layer in common, or one cannot be run.
    """
    original, quantized = onnx.load(float_graph), onnx.load(int8_graph)
    made = {tensor for node in quantized.graph.node for tensor in node.output}
    layers = [n for n in original.graph.node if n.op_type in _LAYERS and n.output[0] in made]
    if not layers:
        raise GraphError(f"{int8_graph}: has no layer of {float_graph}: quantize it again")
    signal, whole, own = _sums(original, quantized, [node.output[0] for node in layers], inputs)
    whole_db = [decibels(*pair) for pair in zip(signal, whole, strict=True)]
    own_db = [decibels(*pair) for pair in zip(signal, own, strict=True)]
    best = [max(whole_db[k:]) for k in range(len(layers))]
    excused = [
        db < UNSOUND_DB and later > _RECOVERED_DB for db, later in zip(own_db, best, strict=True)
    ]
    ratios = np.where(excused, 0.0, 10 ** (-np.array(own_db) / 10))
    shares = (ratios / (ratios.sum() or 1.0)).tolist()
    names = [(node.name or node.output[0], node.op_type) for node in layers]
    columns = zip(names, whole_db, own_db, shares, excused, strict=True)
    return [LayerError(*name, *values) for name, *values in columns]


def _sums(
    original: onnx.ModelProto, quantized: onnx.ModelProto, tensors: list[str], inputs: Float32s
) -> tuple[list[float], list[float], list[float]]:
    """Per tensor Σ z², Σ (y - z)² in the graph as it is, and of the layer alone."""
    given = original.graph.input[0].name
    runs = [_session(_tapped(original, tensors)), _session(_tapped(quantized, tensors))]
    alone = _session(_cut(quantized, tensors))
    fed = {argument.name for argument in alone.get_inputs()}
    taken = _taken_out(original, quantized, tensors)

    def of(image: Float32s) -> Float64s:
        values = {given: image[None]}
        expected, got = (run.run(tensors, values) for run in runs)
        signal = [_energy(z) for z in expected]
        for z, c in zip(expected, taken, strict=True):
            z -= c
        whole = [_energy(y - m) for y, m in zip(got, expected, strict=True)]
        del got  # all tensors of a network: two of the three lie in memory at a time
        feeds = {f"{name}{_FED}": m for name, m in zip(tensors, expected, strict=True)} | values
        own = alone.run(tensors, {name: feeds[name] for name in feeds if name in fed})
        return np.array(
            [signal, whole, [_energy(o - m) for o, m in zip(own, expected, strict=True)]]
        )

    signal, whole, own_noise = np.sum([of(image) for image in inputs], axis=0).tolist()
    return signal, whole, own_noise


def _taken_out(
    original: onnx.ModelProto, quantized: onnx.ModelProto, tensors: Sequence[str]
) -> list[np.float32]:
    """What centring took out of each tensor: the lower bound of the ReLU behind it tells."""
    before, after = wire(original), wire(quantized)
    return [_lower_bound(before, name) - _lower_bound(after, name) for name in tensors]


def _lower_bound(wiring: Wiring, tensor: str) -> np.float32:
    """That of the Clip which alone reads the tensor; 0 without one."""
    reader = wiring.sole_consumer(tensor)
    if reader is None or reader.op_type != "Clip" or len(reader.input) < 2 or not reader.input[1]:
        return np.float32(0)
    return np.float32(numpy_helper.to_array(wiring.constants[reader.input[1]]))


def _energy(values: Float32s) -> float:
    """Σ v², in float32 as far as one row goes: a decibel needs no more digits."""
    rows = values.reshape(-1, values.shape[-1])
    return float(np.einsum("rk,rk->r", rows, rows).sum(dtype=np.float64))


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
    return open_graph(model.SerializeToString(), "ort-cpu", session_options("int8"))
