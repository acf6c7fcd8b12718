"""Proves that an edited graph computes what it computed before, for a batch of any size.

First by structure, without running anything: with h a hash, the key of a constant is
h(type, shape, bytes), of an input its position, of a node's output h(operator, attributes, keys of
its inputs). Equal keys of the graphs' outputs mean the same computation under other names; if every
operator in it acts on each image alone, the batch axis is free as well.

Where that does not settle it, by running both graphs in ONNX Runtime on random images.
"""

import hashlib

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph import first_line

# Both graphs run the same float32 kernels; only the pooling may sum in another order.
_TOLERANCE = 1e-5
# Operators that treat each image alone when all but their first input is constant.
_PER_IMAGE = {
    *("Conv", "BatchNormalization", "Relu", "Clip", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Identity", "Constant"),
}


def check_same_function(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """See that `after` gives each image the logits of `before`, whatever else is in its batch.

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
        if node.op_type == "Add":  # of two images' tensors: a constant may have a batch baked in
            known = all(computed)
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
    error = float(np.abs(got - expected).max(initial=0.0))
    if not error <= _TOLERANCE * largest:
        raise GraphError(
            f"the simplified graph differs from the traced one by {error:.3g} on logits up to "
            f"{largest:.3g}, expected at most {_TOLERANCE * largest:.3g}: if the network's logits "
            "are finite and no image depends on the rest of its batch, please report it"
        )


def _logits(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        output = session.run(None, {model.graph.input[0].name: images})[0]
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise GraphError(
            f"the traced graph does not run with a batch of {len(images)}: {first_line(error)}: "
            "does the network fix the batch size, for instance with x.view(2, -1)"
        ) from error
    return np.asarray(output, np.float32)
