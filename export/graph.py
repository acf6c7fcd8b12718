"""Reads, writes and describes ONNX graphs: one self-contained file, the same bytes every time."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError
from onnx_ir.passes import common as passes

from resdeploy.deploy.errors import GraphError

OPSET = 17  # the last one every TensorRT since 8.5 parses
OPSET_MIN, OPSET_MAX = 13, 20  # below: no per-axis quantization; above: no TensorRT 10.0


def load_graph(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a self-contained ONNX file and check it.

    Raises:
        GraphError: the file cannot be read, is not ONNX, keeps weights elsewhere, or is invalid.
    """
    try:
        model = onnx.load_model_from_string(Path(path).read_bytes())
    except OSError as error:
        raise GraphError(f"cannot read graph {path}: {error.strerror or error}") from error
    except (DecodeError, ValueError) as error:
        raise GraphError(f"{path} is not an ONNX file or is cut off: copy it again") from error
    try:
        check_graph(model)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error.__cause__
    return model


def save_graph(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write one file that needs no other; equal graphs give equal bytes.

    Raises:
        GraphError: invalid, above protobuf's 2 GiB, or the file cannot be written.
    """
    try:
        data = model.SerializeToString(deterministic=True)
    except (ValueError, EncodeError) as error:
        raise GraphError(f"graph is too large for one file {path}: over 2 GiB") from error
    _check(model, data)
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise GraphError(f"cannot write graph {path}: {error.strerror or error}") from error


def check_graph(model: onnx.ModelProto) -> None:
    """Run onnx.checker, and see that no weight lies outside the file.

    Raises:
        GraphError: with the checker's first line.
    """
    _check(model, model)


def _check(model: onnx.ModelProto, written: onnx.ModelProto | bytes) -> None:
    """`written` is the model or its bytes, which the checker would otherwise make once more."""
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise GraphError(
                f"weight {tensor.name} is kept outside the graph file: "
                "save it again with onnx.save_model(model, path, save_as_external_data=False)"
            )
    # The parser of an empty or foreign file may still answer with an empty message.
    if not model.graph.node or not model.graph.output:
        raise GraphError("graph has no nodes or no outputs: this is not an exported network")
    try:
        onnx.checker.check_model(written)
    except onnx.checker.ValidationError as error:
        raise GraphError(f"graph is not valid ONNX: {first_line(error)}") from error


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """Operator type → how many nodes, most frequent first."""
    count = Counter(node.op_type for node in model.graph.node)
    return dict(sorted(count.items(), key=lambda item: (-item[1], item[0])))


def parameters(model: onnx.ModelProto) -> int:
    """Number of weights in the graph's floating-point initializers."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    total = 0
    for tensor in model.graph.initializer:
        if tensor.data_type in floats:
            size = 1
            for dim in tensor.dims:
                size *= dim
            total += size
    return total


def opset(model: onnx.ModelProto) -> int:
    """Version of the default operator set.

    Raises:
        GraphError: the graph imports none.
    """
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    raise GraphError("graph imports no ONNX operator set: export it again")


def set_metadata(model: onnx.ModelProto, entries: Mapping[str, str]) -> None:
    """Replace `model.metadata_props` by `entries`, sorted by key so that the bytes repeat."""
    del model.metadata_props[:]
    for key in sorted(entries):
        model.metadata_props.add(key=key, value=entries[key])


def get_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """The graph's own key → value notes."""
    return {entry.key: entry.value for entry in model.metadata_props}


def finish(model: ir.Model) -> onnx.ModelProto:
    """Turn an edited graph into its final form: sorted, nothing unused, no traces of its making.

    Drops doc strings and node metadata (exporters leave stack traces with absolute paths there)
    and sets the lowest ir_version its operator set allows.
    """
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    passes.TopologicalSortPass()(model)
    notes = dict(sorted(model.metadata_props.items()))
    model.metadata_props.clear()
    model.metadata_props.update(notes)
    model.producer_name, model.producer_version = "resdeploy", None
    model.graph.name = "classifier"
    for tensor in model.graph.initializers.values():
        if tensor.const_value is not None:  # one storage form, so equal weights are equal bytes
            tensor.const_value = ir.tensor(tensor.const_value.numpy(), name=tensor.name)
    proto = ir.to_proto(model)
    proto.ir_version = onnx.helper.find_min_ir_version_for(list(proto.opset_import), True)
    # An initializer states its own type; saying it twice only makes room for contradiction.
    tensors = {tensor.name for tensor in proto.graph.initializer}
    described = [value for value in proto.graph.value_info if value.name not in tensors]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(described)
    return proto


def first_line(error: BaseException) -> str:
    """The first telling line of a foreign exception, for a one-line message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
