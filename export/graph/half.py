"""Turns a float32 graph into one that computes in float16, with float32 input and output.

Precision is written into the graph (weights, and a Cast where the two meet), because strongly typed
builders (TensorRT 11, TensorRT-RTX) take it from there and from nowhere else. float16 has 11
significant bits, ends at 65504, and loses bits below 2^-14 until nothing is left below 2^-25. So a
node stays in float32 where the scan of sample inputs and weights finds

    overflow     max|x| · 4 > 65504 in a tensor it reads or writes; |w| > 65504 in its weights
    vanishing    0 < max|x| < 2^-17 in such a tensor: 8 bits of the largest value are gone
                 ‖W − half(W)‖ > 2^-8 ‖W‖ in an output channel of its weights, and that error shows:
                 Σ|W − half(W)| · max|x| > 2^-11 · max|y|, one rounding of its output y

and where half arithmetic of its operator is not known to be safe.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError, first_line
from resdeploy.deploy.ort import open_graph, session_options
from resdeploy.export.graph.edits import finish

_LARGEST = 65504.0
_HEADROOM = 4.0  # the samples are few: other images reach further
_SMALLEST_PEAK = 2.0**-17
_LOST = 2.0**-8  # relative error; rounding alone gives at most 2^-12
_ROUNDING = 2.0**-11
_SCAN_BATCH = 4  # bounds the memory of the scan
_LOG_NOTHING = 4  # what goes wrong is raised, and need not be printed as well

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
# A batch norm that was left is a scale and a shift: a layer of one weight per channel.
_LAYERS = {"Conv", "Gemm", "BatchNormalization"}
# Not worth a scan of their own: half of all activations.
_FOLLOWERS = {"Clip", "Flatten", "GlobalAveragePool", "MaxPool", "Relu"}
_HALF_OPERATORS = (
    _LAYERS
    | _FOLLOWERS
    | {
        *("Add", "AveragePool", "Concat", "Div", "Erf", "HardSigmoid", "HardSwish", "LeakyRelu"),
        *("Mul", "Pad", "Reshape", "Sigmoid", "Slice", "Squeeze", "Tanh", "Transpose", "Unsqueeze"),
    }
)


@dataclass(frozen=True)
class HalfResult:
    """The float16 graph, and why which nodes stayed in float32 (node name → reason)."""

    model: onnx.ModelProto
    kept_float: Mapping[str, str]


def to_half(model: onnx.ModelProto, samples: Float32s | None) -> HalfResult:
    """Cast a simplified float32 graph; the graph given is not changed.

    `samples` are preprocessed inputs, (N, 3, H, W) float32, to scan the activations with. Without
    them only the weights are judged.

    Raises:
        GraphError: a tensor's type cannot be told, or the graph does not run on the samples.
    """
    edited = ir.from_proto(model)
    for value in (value for node in edited.graph for value in node.outputs):
        if value.dtype is None:
            raise GraphError(
                f"the type of tensor {value.name} is not stated: simplify the graph first"
            )
    peaks = {} if samples is None else _scan(model, edited.graph, samples)
    kept: dict[str, str] = {}
    half: set[ir.Node] = set()
    for node in edited.graph:
        if any(_is_float(value) for value in (*node.inputs, *node.outputs)):
            reason = _why_float(node, peaks)
            if reason is None:
                half.add(node)
            else:
                kept[node.name or node.op_type] = reason
    _cast_graph(edited.graph, half)
    return HalfResult(finish(edited), kept)


def _scan(model: onnx.ModelProto, graph: ir.Graph, samples: Float32s) -> dict[str, float]:
    """Tensor → max |value| over the samples, reduced inside the graph to keep memory small."""
    scan = onnx.ModelProto()
    scan.CopyFrom(model)
    scanned = [node for node in graph if node.op_type not in _FOLLOWERS]
    names = [value.name or "" for node in scanned for value in node.outputs if _is_float(value)]
    names.append(graph.inputs[0].name or "")
    del scan.graph.output[:]
    for number, name in enumerate(names):
        for op_type in ("ReduceMin", "ReduceMax"):
            output = f"{op_type}_{number}"
            scan.graph.node.append(onnx.helper.make_node(op_type, [name], [output], keepdims=0))
            scan.graph.output.append(
                onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [])
            )
    options = session_options()
    options.log_severity_level = _LOG_NOTHING
    peaks = np.zeros(len(names))
    try:
        session = open_graph(scan.SerializeToString(), "ort-cpu", options)
        for start in range(0, len(samples), _SCAN_BATCH):
            batch = samples[start : start + _SCAN_BATCH]
            extremes = session.run(None, {graph.inputs[0].name: batch})
            peaks = np.maximum(peaks, np.abs(np.reshape(extremes, (-1, 2))).max(axis=1))
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise GraphError(
            f"the graph does not run on the samples of shape {samples.shape}: "
            f"{first_line(error.__cause__ or error)}"
        ) from error
    found = dict(zip(names, peaks.tolist(), strict=True))
    _follow(graph, found)
    return found


def _follow(graph: ir.Graph, peaks: dict[str, float]) -> None:
    """Peaks of what only selects or averages: no larger than those of the tensor it reads."""
    for node in graph:
        if node.op_type not in _FOLLOWERS or node.inputs[0] is None:
            continue
        peak = peaks[node.inputs[0].name or ""]
        if node.op_type == "Clip":
            bounds = [value.const_value for value in node.inputs[1:] if value is not None]
            limits = [float(bound.numpy()) for bound in bounds if bound is not None]
            if len(limits) == 2 and limits[0] <= 0 <= limits[1]:
                peak = min(peak, max(-limits[0], limits[1]))
        peaks[node.outputs[0].name or ""] = peak


def _why_float(node: ir.Node, peaks: Mapping[str, float]) -> str | None:
    if node.op_type not in _HALF_OPERATORS:
        return f"{node.op_type} is not known to be safe in half"
    for value in (*node.inputs, *node.outputs):
        peak = peaks.get(value.name or "", 0.0) if value is not None else 0.0
        if value is not None and not peak * _HEADROOM <= _LARGEST:  # also not a number
            return f"{value.name} reaches {peak:.4g}, too near to the end of half, {_LARGEST:g}"
        if value is not None and 0 < peak < _SMALLEST_PEAK:
            return f"{value.name} reaches only {peak:.2g}, which half rounds away"
    for value in node.inputs:
        if value is None or value.const_value is None or not _is_float(value):
            continue
        largest = float(np.abs(value.const_value.numpy()).max(initial=0.0))
        if not largest <= _LARGEST:
            return f"{value.name} reaches {largest:.4g}, half ends at {_LARGEST:g}"
    if node.op_type in _LAYERS:
        return _why_weight_vanishes(node, peaks)
    return None


def _why_weight_vanishes(node: ir.Node, peaks: Mapping[str, float]) -> str | None:
    source, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if weight is None or weight.const_value is None or source is None:
        return None
    w = weight.const_value.numpy()
    if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
        w = w.T
    w = w.reshape(len(w), -1)
    # Only here can absolute rounding, 2^-25 at most, reach that share; the rest need no arithmetic.
    suspects = np.flatnonzero(np.abs(w).max(axis=1) < 2.0**-14)
    w = w[suspects].astype(np.float64)
    lost = np.abs(w - w.astype(np.float16))
    norm = np.linalg.norm(w, axis=1)
    vanish = np.linalg.norm(lost, axis=1) > _LOST * norm
    y_peak = peaks.get(output.name or "", 0.0)
    x_peak = peaks.get(source.name or "", 1.0)
    shows = lost.sum(axis=1) * x_peak > _ROUNDING * y_peak
    found = np.flatnonzero(vanish & shows)
    if not found.size:
        return None
    return (
        f"{weight.name} channel {suspects[found[0]]} reaches only "
        f"{np.abs(w[found[0]]).max():.2g}, which half rounds away"
    )


def _cast_graph(graph: ir.Graph, half: set[ir.Node]) -> None:
    """Type the outputs of `half` nodes and convert every edge between the two worlds."""
    activations = [value for node in graph for value in node.outputs if _is_float(value)]
    weights = [value for value in graph.initializers.values() if _is_float(value)]
    for value in activations:
        if value.producer() in half:
            value.dtype = ir.DataType.FLOAT16
    for value in weights:
        _halve(graph, value, half)
    for value in [*graph.inputs, *activations]:
        other = None
        for node, index in value.uses():
            if (value.dtype == ir.DataType.FLOAT) == (node in half) and value.dtype in _FLOATS:
                other = other or _cast(graph, value)
                node.replace_input_with(index, other)
    for index, value in enumerate(graph.outputs):
        if value.dtype == ir.DataType.FLOAT16:
            name, value.name = value.name, f"{value.name}_half"
            graph.outputs[index] = result = _cast(graph, value)
            result.name = name


def _halve(graph: ir.Graph, weight: ir.Value, half: set[ir.Node]) -> None:
    """Store a weight in half; one that float nodes read as well gets a twin, since parsers want
    Clip bounds and the like as constants, not behind a Cast."""
    uses = [(node, index) for node, index in weight.uses() if node in half]
    if not uses or weight.const_value is None:
        return
    array = weight.const_value.numpy().astype(np.float16)
    if len(uses) == len(weight.uses()):
        weight.const_value, weight.dtype = ir.tensor(array, name=weight.name), ir.DataType.FLOAT16
        return
    name = f"{weight.name}_half"
    twin = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=weight.shape)
    twin.dtype = ir.DataType.FLOAT16
    graph.register_initializer(twin)
    for node, index in uses:
        node.replace_input_with(index, twin)


def _cast(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """A Cast of `value` to the other of the two types, right after its producer."""
    to_float = value.dtype == ir.DataType.FLOAT16
    dtype, suffix = (ir.DataType.FLOAT, "float") if to_float else (ir.DataType.FLOAT16, "half")
    producer = value.producer()
    stem = producer.name if producer is not None else value.name
    node = ir.node("Cast", [value], {"to": dtype}, name=f"{stem}.to_{suffix}")
    result = node.outputs[0]
    result.name = f"{value.name}_{suffix}"
    result.shape, result.dtype = value.shape, dtype
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
    return result


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT
