"""Brings a foreign graph to the form of ours: (batch, 3, H, W) → (batch, classes), any batch.

    input (N, H, W, 3)      →  input (batch, 3, H, W) → Transpose → …
    … → Softmax             →  …                      (probabilities are made outside the graph)
    … (N, classes, 1, 1)    →  … → Flatten
    Reshape to (1, …)       →  Reshape to (-1, …) or (0, …)       where the graph fixes N = 1
    operator set 11, 12     →  13;   above 20 → 20

Whether the result still computes the same is measured, on images, against the file as it was
(`original`).
"""

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from resdeploy.deploy.errors import GraphError, first_line
from resdeploy.deploy.specs import INPUT_NAME, OUTPUT_NAME
from resdeploy.export.foreign.read import ForeignGraph, with_outputs
from resdeploy.export.graph.onnx_file import OPSET_MAX, OPSET_MIN, check_graph, opset

_NHWC = (0, 2, 3, 1)


def standard_form(foreign: ForeignGraph) -> onnx.ModelProto:
    """The graph with our input and output; see the module's docstring.

    Raises:
        GraphError: the operator set cannot be converted.
    """
    model = with_outputs(foreign.model, [foreign.logits])
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.value_info[:]
    _drop_unused(model, foreign.logits)
    if foreign.batch is not None:
        _free_batch(model, foreign.batch)
    _rename_ends(model, foreign)
    del model.metadata_props[:]
    model = _with_opset(model, foreign)
    del model.graph.value_info[:]  # the sizes that the file, or a converter, wrote for its batch
    return model


def _drop_unused(model: onnx.ModelProto, logits: str) -> None:
    """Nodes that the logits do not depend on: the softmax, other heads."""
    wanted, kept = {logits}, []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    used = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)


def _with_opset(model: onnx.ModelProto, foreign: ForeignGraph) -> onnx.ModelProto:
    version = opset(model)
    if version < OPSET_MIN:
        try:
            return version_converter.convert_version(model, OPSET_MIN)
        except Exception as error:  # the converter raises whatever its C++ core throws
            raise GraphError(
                f"{foreign.path}: operator set {version} cannot be converted to {OPSET_MIN}: "
                f"{first_line(error)}: export it again with a newer one"
            ) from error
    if version > OPSET_MAX:
        # what a later set added is another type, input or attribute, which the checker would find
        for entry in model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = OPSET_MAX
        model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), True)
        try:
            check_graph(model)
        except GraphError as error:
            raise GraphError(
                f"{foreign.path}: operator set {version} cannot be brought to {OPSET_MAX}, the "
                f"newest that TensorRT 10.0 reads: {error}"
            ) from error.__cause__
    return model


def _free_batch(model: onnx.ModelProto, batch: int) -> None:
    """Let every Reshape to a constant shape that begins with the fixed batch keep any batch."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type != "Reshape":
            continue
        source = made_by.get(node.input[1])
        tensor = constants.get(node.input[1])
        if tensor is None and source is not None and source.op_type == "Constant":
            tensor = next((a.t for a in source.attribute if a.name == "value"), None)
        if tensor is None:
            continue
        shape = numpy_helper.to_array(tensor)
        if shape.size and shape[0] == batch:
            changed = np.array([0 if -1 in shape else -1, *shape[1:]], np.int64)
            own = numpy_helper.from_array(changed, f"{node.output[0]}_shape")
            model.graph.initializer.append(own)
            node.input[1] = own.name


def _rename_ends(model: onnx.ModelProto, foreign: ForeignGraph) -> None:
    """Our names and shapes at both ends, the axes exchanged where the graph wants them so."""
    graph, (height, width) = model.graph, foreign.size_px
    images, answer = _free_name(model, "images"), _free_name(model, "answer")
    _rename(model, foreign.input, images)
    _rename(model, foreign.logits, answer)
    for name in (INPUT_NAME, OUTPUT_NAME):  # of a tensor inside
        _rename(model, name, _free_name(model, f"{name}_inside"))
    make = onnx.helper.make_node
    nhwc = foreign.layout == "NHWC"
    graph.node.insert(
        0,
        make("Transpose", [INPUT_NAME], [images], perm=_NHWC)
        if nhwc
        else make("Identity", [INPUT_NAME], [images]),
    )
    graph.node.append(make("Identity" if foreign.flat else "Flatten", [answer], [OUTPUT_NAME]))
    single = onnx.TensorProto.FLOAT
    del graph.input[:], graph.output[:]
    graph.input.append(
        onnx.helper.make_tensor_value_info(INPUT_NAME, single, ["batch", 3, height, width])
    )
    graph.output.append(
        onnx.helper.make_tensor_value_info(OUTPUT_NAME, single, ["batch", foreign.classes])
    )


def _free_name(model: onnx.ModelProto, name: str) -> str:
    """`name`, or a longer one where a tensor is called so already."""
    taken = {tensor.name for tensor in model.graph.initializer}
    taken |= {each for node in model.graph.node for each in (*node.input, *node.output)}
    while name in taken:
        name += "_"
    return name


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Give a tensor another name wherever it is written or read."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for tensor in model.graph.initializer:
        if tensor.name == old:
            tensor.name = new
