"""Brings a traced graph to its canonical form and proves that it still computes the same.

    onnxsim (constant folding, dead code)  →  global_pool  →  pad_shortcut  →  names

For ResNet, ResNeXt, MobileNetV2 and CIFAR ResNets what is left is Conv, Relu or Clip, MaxPool, Add,
GlobalAveragePool, Flatten and Gemm: what every TensorRT since 8.5 fuses and every quantizer knows.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir
import onnxsim
from onnx_ir.passes import common as passes

from resdeploy.deploy.errors import GraphError, first_line
from resdeploy.export.graph.edits import Rewrites, finish
from resdeploy.export.graph.equivalence import check_same_function
from resdeploy.export.graph.global_pool import use_global_pool
from resdeploy.export.graph.names import use_parameter_names
from resdeploy.export.graph.pad_shortcut import use_shortcut_convolution

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "BatchNormalization"}


@dataclass(frozen=True)
class Simplified:
    """The canonical form, and what each pass did and declined: pass name → `Rewrites`."""

    model: onnx.ModelProto
    rewrites: Mapping[str, Rewrites]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The canonical form of `model`, as `simplify_and_report` makes it."""
    return simplify_and_report(model).model


def simplify_and_report(model: onnx.ModelProto) -> Simplified:
    """The canonical form of `model`; the graph given is not changed.

    The result is proven to compute the same, for a batch of any size (`equivalence`).

    Raises:
        GraphError: onnxsim fails, the graph does not run at another batch size, or it would
            compute something else.
    """
    simplified = _onnxsim(model)
    edited = ir.from_proto(simplified)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(edited)
    passes.IdentityEliminationPass()(edited)
    rewrites = {
        "global_pool": use_global_pool(edited.graph),
        "pad_shortcut": use_shortcut_convolution(edited.graph),
    }
    passes.TopologicalSortPass()(edited)
    use_parameter_names(edited.graph)
    result = finish(edited)
    check_same_function(model, result)
    return Simplified(result, rewrites)


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
