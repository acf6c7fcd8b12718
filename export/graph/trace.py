"""Turns a PyTorch module into an ONNX graph that still contains its batch normalizations.

The TorchScript exporter comes first: it is 4 to 10 times faster, keeps parameter names, and writes
every opset from 13 to 20. Where a later torch has dropped it, or it cannot trace a module, the
torch.export exporter takes over and the graph is brought to the same form.
Neither optimizes here: folding is `fold_batchnorm`'s, simplification `simplify`'s work, so that
each step can be proven by itself.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes

from resdeploy.deploy.defaults import OPSET
from resdeploy.deploy.errors import GraphError, InputError, first_line
from resdeploy.deploy.specs import INPUT_NAME, OUTPUT_NAME
from resdeploy.export.graph.global_pool import use_global_pool
from resdeploy.export.graph.onnx_file import OPSET_MAX, OPSET_MIN, check_graph

_BATCH_AXIS = "batch"
# Not 1: torch.export takes an axis of length 0 or 1 for a constant.
_EXAMPLE_BATCH = 2
# Without an upper end older torch asks for one that is not the largest integer.
_BATCH_MAX = 2**31 - 1
_TORCH_EXPORT_OPSET_MIN = 18

_Exporter = Callable[[torch.nn.Module, torch.Tensor, int, Sequence[str]], onnx.ModelProto]
_LOGITS = (OUTPUT_NAME,)


def trace(
    module: torch.nn.Module,
    *,
    input_size_px: int | tuple[int, int],
    opset: int = OPSET,
    outputs: Sequence[str] = _LOGITS,
) -> onnx.ModelProto:
    """Export `module`, (N, 3, H, W) float32 → (N, classes) float32, with a dynamic batch axis.

    `input_size_px` is the side of a square input or (height, width). The module is only read. With
    other `outputs` than logits it gives a tuple of as many feature maps (N, C, h, w).

    Raises:
        InputError: `opset` is outside 13 to 20.
        GraphError: no exporter can trace the module, or its output is not one (N, classes) tensor.
        ValueError: the module is in training mode.
    """
    if not OPSET_MIN <= opset <= OPSET_MAX:
        raise InputError(
            f"opset {opset} is not supported: expected {OPSET_MIN} to {OPSET_MAX}, "
            f"and {OPSET} is what every TensorRT since 8.5 reads"
        )
    if any(part.training for part in module.modules()):
        raise ValueError("the module is in training mode: call module.eval() first")
    size = (input_size_px, input_size_px) if isinstance(input_size_px, int) else input_size_px
    example = torch.zeros(_EXAMPLE_BATCH, 3, *size, device=_check_parameters(module))

    model = _exported(module, example, opset, outputs)
    if tuple(outputs) == _LOGITS:
        _check_output(model, module)
    return model


def _exported(
    module: torch.nn.Module, example: torch.Tensor, opset: int, outputs: Sequence[str]
) -> onnx.ModelProto:
    """The graph of the first exporter that can trace the module."""
    failures: list[str] = []
    exporters: tuple[_Exporter, ...] = (torchscript_graph, torch_export_graph)
    for exporter in exporters:
        try:
            with _quiet(), torch.no_grad():
                return exporter(module, example, opset, outputs)
        # The exporters raise whatever the module's own code and torch's internals raise.
        except Exception as error:
            failures.append(f"{type(error).__name__}: {first_line(error)}")
    height, width = example.shape[2:]
    raise GraphError(
        f"torch cannot trace {type(module).__name__} at input size {height}x{width}: "
        f"{failures[0]} (second exporter: {failures[1]}): "
        "does module(torch.zeros(2, 3, height, width)) run"
    )


def torchscript_graph(
    module: torch.nn.Module, example: torch.Tensor, opset: int, outputs: Sequence[str] = _LOGITS
) -> onnx.ModelProto:
    """Export with the TorchScript exporter (torch.onnx.export with dynamo=False)."""
    file: Any = io.BytesIO()  # works, though only paths are declared
    torch.onnx.export(
        module,
        (example,),
        file,
        dynamo=False,
        opset_version=opset,
        # Otherwise its evaluation peephole folds batch norms in float32, without a proof.
        do_constant_folding=False,
        input_names=[INPUT_NAME],
        output_names=list(outputs),
        dynamic_axes={name: {0: _BATCH_AXIS} for name in (INPUT_NAME, *outputs)},
    )
    model = ir.from_proto(onnx.load_model_from_string(file.getvalue()))
    _own_initializers(model.graph)
    return ir.to_proto(model)


def torch_export_graph(
    module: torch.nn.Module, example: torch.Tensor, opset: int, outputs: Sequence[str] = _LOGITS
) -> onnx.ModelProto:
    """Export with the torch.export exporter (torch.onnx.export with dynamo=True).

    It writes opset 18 and later. An older one is reached by relabelling: from 13 to 20 operators
    gained types, inputs and attributes, and a node that uses none of the new ones means the same
    (the spatial mean, whose axes became an input, is replaced first).
    """
    # Not at module level: it costs a second that the usual path need not pay.
    from onnxscript.optimizer import fold_constants

    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        optimize=False,  # its optimizer would fold batch norms in float32, without a proof
        verbose=False,
        opset_version=max(opset, _TORCH_EXPORT_OPSET_MIN),
        input_names=[INPUT_NAME],
        output_names=list(outputs),
        dynamic_shapes=({0: torch.export.Dim(_BATCH_AXIS, min=1, max=_BATCH_MAX)},),
    )
    assert program is not None
    model: ir.Model = program.model
    passes.InlinePass()(model)
    fold_constants(model)  # weight-free shape arithmetic only; it knows no batch norms
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    use_global_pool(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    return _relabel_opset(model, opset)


def _own_initializers(graph: ir.Graph) -> None:
    """Give every parameter its own initializer under its own name.

    The TorchScript exporter merges parameters of equal value (fresh batch norms, zero biases) and
    leaves an Identity under the name of each one merged away.
    """
    for node in list(graph):
        source, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type != "Identity" or source is None or source.const_value is None:
            continue
        if output.is_graph_output():
            continue
        own = ir.Value(name=output.name, type=source.type, shape=source.shape)
        own.const_value = ir.tensor(source.const_value.numpy(), name=output.name)
        output.replace_all_uses_with(own)
        graph.remove(node, safe=True)
        graph.register_initializer(own)


def _relabel_opset(model: ir.Model, opset: int) -> onnx.ModelProto:
    """The same nodes under another opset; the checker finds what that opset does not know."""
    current = model.graph.opset_imports[""]
    model.graph.opset_imports[""] = opset
    proto = ir.to_proto(model)
    try:
        check_graph(proto)
    except GraphError as error:
        raise GraphError(f"{error}: export with --opset {current}") from error.__cause__
    return proto


def _check_parameters(module: torch.nn.Module) -> torch.device:
    """See that all floating-point weights are float32; the device they are on."""
    device = torch.device("cpu")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise GraphError(
                f"weight {name} is {str(tensor.dtype).removeprefix('torch.')}, expected float32: "
                "call module.float() first"
            )
        device = tensor.device
    return device


def _check_output(model: onnx.ModelProto, module: torch.nn.Module) -> None:
    outputs = model.graph.output
    tensor = outputs[0].type.tensor_type
    dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    if len(outputs) != 1 or len(dims) != 2 or tensor.elem_type != onnx.TensorProto.FLOAT:
        got = f"{len(outputs)} outputs" if len(outputs) != 1 else f"an output of shape {dims}"
        raise GraphError(
            f"{type(module).__name__} gives {got}, expected one float32 tensor (batch, classes): "
            "wrap it in a module that returns only the logits"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which warn of their own deprecation and print progress.

    What such a warning may mean for the result (a branch frozen by tracing, say) is found by
    comparing the graph with the module, not by showing it.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
