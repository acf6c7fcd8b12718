"""Tells, layer by layer, how an INT8 graph holds a layer's input and what it does to its output.

The rows are made once, when the graph is (they need onnx, onnxruntime and images), and stored
with the bundle, where `resdeploy inspect` finds them on any machine.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from resdeploy.calibration.graph.topology import Wiring, wire
from resdeploy.calibration.layerwise import layer_errors
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.targets import INT8_VARIANTS

# Errors of whole layers settle within a few images.
_IMAGES = 2


@dataclass(frozen=True)
class LayerRow:
    """One Conv, Gemm or Add of an INT8 graph.

    low, high, scale, zero_point: of the grid its quantized input lies on; None for a float layer.
    weight_peak: the largest |integer| among its weights, None for an Add or a float layer.
    own_db, whole_db, share: see `layer_errors`.
    """

    name: str
    op_type: str
    low: float | None
    high: float | None
    scale: float | None
    zero_point: int | None
    weight_peak: int | None
    own_db: float
    whole_db: float
    share: float


def layer_rows(float_graph: Path, int8_graph: Path, inputs: Float32s) -> list[LayerRow]:
    """The layers of an INT8 graph in order, measured on `inputs` (N, 3, H, W).

    Raises:
        GraphError: the graphs have no layer in common, or one cannot be run.
    """
    wiring = wire(onnx.load(int8_graph))
    nodes = {node.output[0]: node for node in wiring.nodes}
    named = {node.name: node for node in nodes.values()}
    rows = []
    for error in layer_errors(float_graph, int8_graph, inputs):
        node = named.get(error.name, nodes.get(error.name))
        grid = None if node is None else _input_grid(wiring, node)
        low, high, scale, zero_point = grid or (None, None, None, None)
        rows.append(
            LayerRow(
                name=error.name,
                op_type=error.op_type,
                low=low,
                high=high,
                scale=scale,
                zero_point=zero_point,
                weight_peak=None if node is None else _weight_peak(wiring, node),
                own_db=error.own_db,
                whole_db=error.whole_db,
                share=error.share,
            )
        )
    return rows


def measured_layers(
    bundle: Path, variants: Collection[str], inputs: Float32s
) -> dict[str, list[dict[str, Any]]]:
    """Variant → rows as plain values, for the two grids a bundle has, on a few of `inputs`.

    int8-fp16 has the integers of int8 and is left out.
    """
    few = inputs[:_IMAGES]
    return {
        name: [
            asdict(row) for row in layer_rows(bundle / "fp32.onnx", bundle / f"{name}.onnx", few)
        ]
        for name in INT8_VARIANTS
        if name in variants
    }


def _dequantizer(wiring: Wiring, tensor: str) -> NodeProto | None:
    node = wiring.producer.get(tensor)
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _input_grid(wiring: Wiring, node: NodeProto) -> tuple[float, float, float, int] | None:
    """Lowest and highest value, scale and zero point of the first quantized activation read."""
    for tensor in node.input:
        dequantizer = _dequantizer(wiring, tensor)
        if dequantizer is None or dequantizer.input[0] in wiring.constants:
            continue
        scale = float(numpy_helper.to_array(wiring.constants[dequantizer.input[1]]))
        zero = numpy_helper.to_array(wiring.constants[dequantizer.input[2]])
        ends = np.iinfo(zero.dtype)
        offset = int(zero)
        return scale * (ends.min - offset), scale * (ends.max - offset), scale, offset
    return None


def _weight_peak(wiring: Wiring, node: NodeProto) -> int | None:
    if node.op_type == "Add":
        return None
    dequantizer = _dequantizer(wiring, node.input[1])
    if dequantizer is None or dequantizer.input[0] not in wiring.constants:
        return None
    values = numpy_helper.to_array(wiring.constants[dequantizer.input[0]])
    return int(np.abs(values.astype(np.int16)).max())
