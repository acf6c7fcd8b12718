"""Constants of a graph: which values are ones, reading them in float64, writing new ones."""

import numpy as np
import onnx_ir as ir

from resdeploy.deploy.arrays import Float32s, Float64s


def is_constant(value: ir.Value | None) -> bool:
    """An initializer that no caller can override by feeding an input of the same name."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def float64(value: ir.Value | None) -> Float64s:
    """The array of a constant, in its own shape."""
    assert value is not None and value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def set_constant(value: ir.Value, array: Float32s) -> None:
    """Give an initializer another content; its name stays."""
    value.const_value = ir.tensor(array, name=value.name)
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.FLOAT


def new_initializer(graph: ir.Graph, name: str, array: Float32s) -> ir.Value:
    """Register `array` under `name`, or under a longer one where that is taken."""
    taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    while name in taken:
        name += "_folded"
    value = ir.Value(name=name)
    set_constant(value, array)
    graph.register_initializer(value)
    return value


def bypass(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    """Take a node out of the graph: its readers read `source`, one of its inputs; an output of the
    graph keeps its name. Initializers that only this node read go with it.
    """
    output, parameters = node.outputs[0], [value for value in node.inputs if value is not source]
    name, is_output = output.name, output.is_graph_output()
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if is_output:
        source.name, source.type, source.shape = name, output.type, output.shape
    for value in parameters:
        if value is not None and value.name and value.is_initializer() and not value.uses():
            del graph.initializers[value.name]
