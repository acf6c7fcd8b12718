"""Gives every node and tensor of a graph a name that follows from the network's parameter names.

    layer1.0.conv1            a node with a weight: the weight's name less ".weight"
    layer1.0.conv1.relu       what acts on its output alone
    layer1.0.add              a node that joins branches: named in the block of its last weight
    layer1.0.relu             what acts on that
    max_pool, global_average_pool, flatten      directly below the block or in the stem
    layer1.0.conv1_output     the tensor a node writes; biases are layer1.0.conv1.bias

Both exporters of torch thus lead to the same names, and a report on a layer, a list of layers to
leave in float and a cache of ranges all mean the same thing after the next export.
"""

import re

import onnx_ir as ir

from resdeploy.deploy.specs import INPUT_NAME, OUTPUT_NAME

# Whole-network steps: they belong to no block, whatever block they follow.
_ROOT_STEPS = {"MaxPool", "GlobalAveragePool", "Flatten"}
_WEIGHT_INPUTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"}


def use_parameter_names(graph: ir.Graph) -> None:
    """Rename nodes, tensors, input and output in place; initializers that are weights keep theirs.

    Needs topologically sorted nodes, one input and one output, or feature maps that are named.
    """
    _name_nodes(graph)
    _name_values(graph)
    _name_constants(graph)


def _name_nodes(graph: ir.Graph) -> None:
    taken: set[str] = set()
    order = {node: index for index, node in enumerate(graph)}
    scopes: dict[ir.Node, str] = {}  # node → the block it belongs to, such as layer1.0
    for node in graph:
        found = [value.producer() for value in node.inputs if value is not None]
        # In the order of the graph: whichever operand of an Add comes first means nothing.
        producers = sorted((p for p in found if p is not None), key=order.__getitem__)
        weight, step = _weight(node), _snake(node.op_type)
        if weight is not None:
            name, scope = weight, _parent(weight)
        elif node.op_type in _ROOT_STEPS or not producers:
            name, scope = step, ""
        else:
            # A residual branch ends in a convolution of its own block; an identity shortcut comes
            # from the block before, so it has no say where there is a weighted branch.
            weights = [name for name in map(_weight, producers) if name is not None]
            scope = _join([*map(_parent, weights)] or [scopes[producers[-1]]])
            prefix = weights[0] if len(producers) == 1 and weights else scope
            name = f"{prefix}.{step}" if prefix else step
        scopes[node] = scope
        node.name = _unique(name, taken)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _join(scopes: list[str]) -> str:
    """The block where branches of these blocks meet: that of the last one, or the one around it.

    layer1.0, layer1.0.downsample → layer1.0; features.2.conv, features.3.conv → features.3.conv
    """
    around = [scope for scope in scopes if scope and scopes[-1].startswith(f"{scope}.")]
    return min(around, key=len, default=scopes[-1])


def _weight(node: ir.Node) -> str | None:
    """The parameter name of a weighted node, less its last part; None for other nodes."""
    if node.op_type not in _WEIGHT_INPUTS or len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    if value is None or value.const_value is None or not value.name:
        return None
    return value.name.removesuffix(".weight")


def _name_values(graph: ir.Graph) -> None:
    graph.inputs[0].name = INPUT_NAME
    outputs = [OUTPUT_NAME] if not _gives_maps(graph) else [v.name or "" for v in graph.outputs]
    taken = {INPUT_NAME, *outputs, *graph.initializers}
    for node in graph:
        for value in node.outputs:
            if value.name != "":  # the mark of an optional output that is left out
                value.name = _unique(f"{node.name}_output", taken)
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name


def _gives_maps(graph: ir.Graph) -> bool:
    """Whether the outputs are a backbone's feature maps (N, C, h, w), which have names already."""
    shape = graph.outputs[0].shape
    return len(graph.outputs) > 1 or (shape is not None and len(shape) == 4)


def _name_constants(graph: ir.Graph) -> None:
    """Name biases after their node; Clip bounds after their value, one tensor for equal ones."""
    taken = {value.name or "" for node in graph for value in node.outputs} | {INPUT_NAME}
    taken |= set(graph.initializers)
    bounds: dict[tuple[str, float], ir.Value] = {}
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is None:
                continue
            stem = _weight(node)
            if stem is not None and index == 2 and len(value.uses()) == 1:
                if value.name != f"{stem}.bias":
                    value.name = _unique(f"{stem}.bias", taken)
            elif node.op_type == "Clip":
                role, number = ("clip_min", "clip_max")[index - 1], value.const_value.numpy().item()
                if (role, number) not in bounds:
                    bounds[role, number] = value
                    value.name = _unique(f"{role}_{number:g}", taken)
                node.replace_input_with(index, bounds[role, number])
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def _unique(name: str, taken: set[str]) -> str:
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def _snake(op_type: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", op_type).lower()
