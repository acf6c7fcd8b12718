"""Proves that an edited graph computes what it computed before, for a batch of any size.

First by structure, without running anything: with h a hash, the key of a constant is
h(type, shape, bytes), of an input its position, of a node's output h(operator, attributes, keys of
its inputs). Equal keys of the graphs' outputs mean the same computation under other names; if every
operator in it acts on each image alone, the batch axis is free as well.

Where that does not settle it, by running both graphs in ONNX Runtime on random images. They may
differ by 1e-5 of the largest logit, or by 16 times what the traced graph itself makes of one last
bit of each input value, at most 1e-2: a network that amplifies rounding is not refused for it, and
one that hardly does is held to the first limit.
"""

import hashlib

import numpy as np
import onnx
from onnx import numpy_helper

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError, first_line
from resdeploy.deploy.ort import open_graph, session_options

# Both graphs run the same float32 kernels; only sums may be taken in another order. What that does
# to the logits depends on the network: as much as a last bit of the input does, within a factor.
_TOLERANCE = 1e-5
_LAST_BITS = 16
_LARGEST_TOLERANCE = 1e-2  # beyond that, rounding decides the answers and nothing is proven
_LOG_NOTHING = 4  # what goes wrong is raised, and need not be printed as well
# Operators that treat each image alone when all but their first input is constant.
_PER_IMAGE = {
    *("Conv", "BatchNormalization", "Relu", "Clip", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Identity", "Constant", "LeakyRelu", "Sigmoid", "HardSigmoid"),
    *("HardSwish", "Tanh"),
}


def check_same_function(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """See that `after` gives each image what `before` does, whatever else is in its batch.

    Raises:
        GraphError: it does not, or does not run at a batch size other than the traced one.
    """
    if not (_output_keys(before) == _output_keys(after) and _acts_per_image(after)):
        _compare_logits(before, after)


def _output_keys(model: onnx.ModelProto) -> list[bytes]:
    graph = model.graph
    keys = {value.name: f"input {index}".encode() for index, value in enumerate(graph.input)}
    keys |= {tensor.name: _constant_key(tensor) for tensor in graph.initializer} | {"": b"left out"}
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Identity":
            keys[node.output[0]] = keys[node.input[0]]
        elif node.op_type == "Constant" and "value" in attributes:
            keys[node.output[0]] = _constant_key(attributes["value"].t)
        else:
            digest = hashlib.sha256(repr((node.op_type, node.domain)).encode())
            for name in sorted(attributes):
                digest.update(attributes[name].SerializeToString(deterministic=True))
            for name in node.input:
                digest.update(keys[name])
            for index, name in enumerate(node.output):
                keys[name] = digest.digest() + bytes([index])
    return [keys[value.name] for value in graph.output]


def _constant_key(tensor: onnx.TensorProto) -> bytes:
    described = repr((tensor.data_type, list(tensor.dims))).encode()
    content = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
    return hashlib.sha256(described + hashlib.sha256(content).digest()).digest()


def _acts_per_image(model: onnx.ModelProto) -> bool:
    rank = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        computed = [bool(name) and name not in rank for name in node.input]
        if node.op_type in ("Add", "Mul"):
            known = all(computed)  # of two images' tensors: a constant may have a batch baked in
        elif node.op_type == "Concat":
            known = all(computed) and attributes.get("axis", 0) > 0
        elif node.op_type == "Gemm":
            bias = rank.get(node.input[2], 2) if len(node.input) > 2 else 0
            known = not attributes.get("transA", 0) and bias <= 1 and not any(computed[1:])
        elif node.op_type == "Flatten":
            known = attributes.get("axis", 1) == 1
        else:
            known = node.op_type in _PER_IMAGE and not any(computed[1:])
        if not known or attributes.get("training_mode", 0):
            return False
    return True


def _compare_logits(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Two images before, three in another order after: each must keep its logits."""
    dims = [dim.dim_value for dim in after.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = np.random.default_rng(0).standard_normal((3, *dims), np.float32)
    expected = _logits(before, images[:2])
    # A batch other than the traced one: a graph that has baked that number in fails here.
    got = _logits(after, images[::-1])[:0:-1]
    if got.shape != expected.shape:
        raise GraphError(
            f"the simplified graph gives logits of shape {got.shape}, the traced one "
            f"{expected.shape}: the network fixes its batch size or mixes the images of a batch"
        )
    largest = max(1.0, float(np.abs(expected).max(initial=0.0)))
    error = _difference(got, expected)
    limit = _TOLERANCE * largest
    if not error <= limit:
        nudged = _logits(before, np.nextafter(images[:2], -images[:2]))
        rounding = _LAST_BITS * _difference(nudged, expected)
        limit = max(limit, min(rounding, _LARGEST_TOLERANCE * largest))
    if not error <= limit:
        raise GraphError(
            f"the simplified graph differs from the traced one by {error:.3g} on logits up to "
            f"{largest:.3g}, expected at most {limit:.3g}: if the network's logits "
            "are finite and no image depends on the rest of its batch, please report it"
        )


def _difference(got: Float32s, expected: Float32s) -> float:
    return float(np.abs(got - expected).max(initial=0.0))


def _logits(model: onnx.ModelProto, images: Float32s) -> Float32s:
    options = session_options()
    options.log_severity_level = _LOG_NOTHING
    try:
        session = open_graph(model.SerializeToString(), "ort-cpu", options)
        outputs = session.run(None, {model.graph.input[0].name: images})
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise GraphError(
            f"the traced graph does not run with a batch of {len(images)}: "
            f"{first_line(error.__cause__ or error)}: "
            "does the network fix the batch size, for instance with x.view(2, -1)"
        ) from error
    if len(outputs) == 1:
        return np.asarray(outputs[0], np.float32)
    return np.concatenate([values.reshape(len(values), -1) for values in outputs], axis=1)
