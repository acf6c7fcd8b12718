"""Reads, writes and describes ONNX graphs: one self-contained file, the same bytes every time."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError

from resdeploy.deploy.errors import GraphError, first_line

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


def append_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Append `entries` to the `metadata_props` of the ONNX file at `path`, sorted by key."""
    tail = onnx.ModelProto()
    for key in sorted(entries):
        tail.metadata_props.add(key=key, value=entries[key])
    with path.open("ab") as file:
        file.write(tail.SerializeToString(deterministic=True))
