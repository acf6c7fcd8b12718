"""Brings a traced graph to its canonical form and proves that it still computes the same.

    onnxsim (constant folding, dead code)  →  global_pool  →  pad_shortcut  →  names

For ResNet, ResNeXt, MobileNetV2 and CIFAR ResNets what is left is Conv, Relu or Clip, MaxPool, Add,
GlobalAveragePool, Flatten and Gemm: what every TensorRT since 8.5 fuses and every quantizer knows.
"""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import onnxsim
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from resdeploy.deploy.errors import GraphError
from resdeploy.export.global_pool import use_global_pool
from resdeploy.export.graph import finish, first_line
from resdeploy.export.names import use_parameter_names
from resdeploy.export.pad_shortcut import use_shortcut_convolution

# Both graphs run the same float32 kernels; only the pooling may sum in another order.
_TOLERANCE = 1e-5
_LAYERS = {"Conv", "ConvTranspose", "Gemm"}


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The canonical form of `model`; the graph given is not changed.

    Checked in ONNX Runtime on random images, two before, three in another order after: each must
    keep its logits, so the function is the same, the batch axis is truly dynamic, and no image
    has a say in another's result.

    Raises:
        GraphError: onnxsim fails, the graph does not run at another batch size, or it would
            compute something else.
    """
    simplified = _onnxsim(model)
    edited = ir.from_proto(simplified)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(edited)
    passes.IdentityEliminationPass()(edited)
    use_global_pool(edited.graph)
    use_shortcut_convolution(edited.graph)
    passes.TopologicalSortPass()(edited)
    use_parameter_names(edited.graph)
    result = finish(edited)
    _check_equal(model, result)
    return result


def _onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Run onnxsim without the layers' weights and biases: it would copy them some twenty times, and
    merge those that happen to be equal.

    They become graph inputs of the same name for the time being. (ResNeXt-50: 1.2 s → 0.05 s.)
    """
    weights = _layer_weights(model)
    hollow = onnx.ModelProto()
    hollow.CopyFrom(model)
    del hollow.graph.initializer[:]
    hollow.graph.initializer.extend(t for t in model.graph.initializer if t.name not in weights)
    for tensor in weights.values():
        hollow.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    try:
        with _mute_stderr():
            # Batch norms are fold_batchnorm's: one it has declined must stay.
            simplified: onnx.ModelProto = onnxsim.simplify(hollow, skip_fuse_bn=True)[0]
    # onnxsim lets pass whatever its C++ core throws.
    except Exception as error:
        raise GraphError(
            f"onnxsim cannot simplify the traced graph: {first_line(error)}"
        ) from error
    inputs = [value for value in simplified.graph.input if value.name not in weights]
    del simplified.graph.input[:]
    simplified.graph.input.extend(inputs)
    simplified.graph.initializer.extend(weights.values())
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    return simplified


@contextlib.contextmanager
def _mute_stderr() -> Iterator[None]:
    """onnxsim's C++ core warns on descriptor 2 of each constant it could not fold at first try."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _layer_weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers that are the weight or bias of layers and nothing else."""
    as_weight: set[str] = set()
    otherwise: set[str] = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            (as_weight if node.op_type in _LAYERS and index in (1, 2) else otherwise).add(name)
    names = as_weight - otherwise
    return {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in names}


def _check_equal(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
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
    # The graph as written, and loaded in a third of the time.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
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
