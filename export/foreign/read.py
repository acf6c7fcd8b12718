"""Reads an ONNX classifier that another tool wrote, and finds its images, its logits, its batch.

    file  →  `ForeignGraph`: the graph as it is, which tensors are which, how many classes

Nothing of the graph is changed here: it stays what all proofs are measured by.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import GraphError, InputError, first_line
from resdeploy.deploy.ort import open_graph, session_options
from resdeploy.export.graph.onnx_file import check_graph, opset

Layout = Literal["NCHW", "NHWC"]

OPSET_LEAST = 11
_CHANNELS = 3
_USUAL_SIZE_PX = 224
_LOG_NOTHING = 4  # what goes wrong is raised, and need not be printed as well
_ENDS = ("Softmax", "LogSoftmax")
# what is made of a float graph, not adopted in its place
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger")
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class ForeignGraph:
    """A classifier that another tool wrote.

    Attributes:
        sha256: of the file.
        model: as read, with its weights; not to be changed.
        input: the name of the images' tensor, `layout` its axes.
        size_px: height and width; `assumed_size` says whether the graph leaves them open.
        batch: the number of images the graph insists on, or None.
        logits: the name of the logits' tensor.
        end: the softmax behind them, "" for none.
        flat: whether the logits are (N, classes), and not (N, classes, 1, 1).
    """

    path: Path
    sha256: str
    model: onnx.ModelProto
    opset: int
    input: str
    layout: Layout
    size_px: tuple[int, int]
    assumed_size: bool
    batch: int | None
    logits: str
    end: str
    classes: int
    flat: bool


def read_foreign(
    path: Path, *, size_px: tuple[int, int] | None = None, logits: str | None = None
) -> ForeignGraph:
    """Read `path`; `size_px` where the graph leaves the size open, `logits` of several outputs.

    Raises:
        GraphError: not ONNX, an operator set before 11, quantized already, not in float32, or
            with operators of one runtime alone.
        InputError: not one input of RGB images, not one output of logits; says what there is.
    """
    model = _load(path)
    version = opset(model)
    if version < OPSET_LEAST:
        raise GraphError(
            f"{path}: ONNX operator set {version}, expected {OPSET_LEAST} or newer: export it "
            "again with a newer one"
        )
    _check_nodes(path, model)
    images = _images_input(path, model)
    layout, size, batch = _axes(path, images, size_px)
    name, end = _logits_output(path, model, logits)
    axes = (_CHANNELS, *size) if layout == "NCHW" else (*size, _CHANNELS)
    zeros = np.zeros((batch or 1, *axes), np.float32)
    shape = _answer_shape(path, model, name, {images.name: zeros})
    return ForeignGraph(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        model=model,
        opset=version,
        input=images.name,
        layout=layout,
        size_px=size,
        assumed_size=size_px is None and None in _spatial(images, layout),
        batch=batch,
        logits=name,
        end=end,
        classes=_classes(path, name, shape, batch or 1),
        flat=len(shape) == 2,
    )


def _load(path: Path) -> onnx.ModelProto:
    """The graph with its weights, wherever the file keeps them."""
    try:
        model = onnx.load(str(path))
    except OSError as error:
        raise GraphError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise GraphError(
            f"{path}: not an ONNX file, cut off, or without the file of its weights "
            f"({first_line(error)}): copy it again"
        ) from error
    for entry in model.metadata_props:
        if entry.key == "resdeploy_format_version":
            raise InputError(
                f"{path}: written by resdeploy already: use it as it is, for instance with "
                f"resdeploy predict {path} IMAGE"
            )
    try:
        check_graph(model)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error.__cause__
    return model


def _check_nodes(path: Path, model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in _QUANTIZED:
            raise GraphError(
                f"{path}: quantized already ({node.op_type} {node.name}): adopt the float graph "
                "it was made from, and quantize that with resdeploy quantize"
            )
        if node.domain not in _STANDARD:
            raise GraphError(
                f"{path}: operator {node.domain}.{node.op_type} is not standard ONNX, so that "
                "only one runtime knows it: export the graph again without optimizing it"
            )
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
            kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            if len(tensor.dims) > 1:
                raise GraphError(
                    f"{path}: weight {tensor.name} is {kind}, expected float32: export the "
                    "graph again in float32"
                )


def _images_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input that is not a weight: old exporters list those among the inputs, too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [
        value for value in model.graph.input if value.name not in weights
    ]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise InputError(f"{path}: {len(inputs)} inputs ({names}), expected one of images")
    kind = inputs[0].type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(kind).lower()
        raise InputError(
            f"{path}: input {inputs[0].name} is {name}, expected float: export the graph again "
            "without the conversion of its input"
        )
    return inputs[0]


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """The sizes of a tensor; None for one that the graph leaves open."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else None for dim in dims]


def _spatial(value: onnx.ValueInfoProto, layout: Layout) -> list[int | None]:
    """Height and width."""
    return _sizes(value)[2:] if layout == "NCHW" else _sizes(value)[1:3]


def _axes(
    path: Path, value: onnx.ValueInfoProto, size_px: tuple[int, int] | None
) -> tuple[Layout, tuple[int, int], int | None]:
    """Where the channels are, height and width, and the batch the graph insists on."""
    sizes = _sizes(value)
    if len(sizes) != 4 or _CHANNELS not in (sizes[1], sizes[3]):
        shown = " x ".join("?" if size is None else str(size) for size in sizes)
        raise InputError(
            f"{path}: input {value.name} is {shown}, expected N x 3 x H x W or N x H x W x 3"
        )
    layout: Layout = "NCHW" if sizes[1] == _CHANNELS else "NHWC"
    height, width = _spatial(value, layout)
    wanted = size_px or (_USUAL_SIZE_PX, _USUAL_SIZE_PX)
    found = (height or wanted[0], width or wanted[1])
    if size_px is not None and found != size_px:
        raise InputError(
            f"{path}: takes images of {found[1]}x{found[0]} pixels only, but "
            f"{size_px[1]}x{size_px[0]} were asked for"
        )
    return layout, found, sizes[0]


def _logits_output(path: Path, model: onnx.ModelProto, asked: str | None) -> tuple[str, str]:
    """The tensor of the logits, and the softmax behind it, which is taken off."""
    names = [value.name for value in model.graph.output]
    if asked is None and len(names) != 1:
        raise InputError(
            f"{path}: {len(names)} outputs ({', '.join(names)}): say which has the logits with "
            f"--logits {names[0]}"
        )
    if asked is not None and asked not in names:
        raise InputError(f"{path}: no output {asked!r} (it has {', '.join(names)})")
    name = asked or names[0]
    made_by = {output: node for node in model.graph.node for output in node.output}
    last = made_by.get(name)
    if last is not None and last.op_type == "Sigmoid":
        raise InputError(
            f"{path}: output {name} comes from a sigmoid, one decision for each class, but "
            "resdeploy deploys networks that choose one class"
        )
    if last is not None and last.op_type in _ENDS:
        return last.input[0], last.op_type
    return name, ""


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The same graph, which gives the tensors called `names`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return changed


def _answer_shape(
    path: Path, model: onnx.ModelProto, logits: str, images: Mapping[str, Float32s]
) -> tuple[int, ...]:
    """The shape of the logits, found by running the graph once: files often do not say it."""
    options = session_options()
    options.log_severity_level = _LOG_NOTHING
    try:
        session = open_graph(with_outputs(model, [logits]).SerializeToString(), "ort-cpu", options)
        (answer,) = session.run(None, dict(images))
    except Exception as error:  # onnxruntime raises its own classes derived from Exception
        ((name, zeros),) = images.items()
        raise GraphError(
            f"{path}: does not run with {name} of shape {zeros.shape}: "
            f"{first_line(error.__cause__ or error)}"
        ) from error
    return tuple(answer.shape)


def _classes(path: Path, logits: str, shape: tuple[int, ...], batch: int) -> int:
    flat = (*shape[:2], *(size for size in shape[2:] if size != 1))
    if len(flat) != 2 or flat[0] != batch or flat[1] < 2:
        raise InputError(
            f"{path}: output {logits} has shape {shape} for {batch} images, expected "
            "(images, classes) with at least two classes"
        )
    return flat[1]
