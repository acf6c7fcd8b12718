"""Reads the table of an engine's layers out of the build log, without a GPU and without a run.

At DETAILED profiling verbosity every TensorRT logs one message with a line per layer, in one of
three shapes (type of the first input in capitals here):

    TensorRT-RTX   Name: conv1, LayerType: correlation, Inputs: [ { Name: x, …, Datatype: INT8, …
    TensorRT ≥ 8.4 Name: conv1, LayerType: CaskConvolution, Inputs: [ { …, Format/Datatype: Thirty-
                   two wide channel vectorized row major INT8 format }], Outputs: …
    names only     Layer(CaskConvolution): conv1, Tactic: 0x…, x[INT8(1,3,224,224)] -> y[Half(…)]

A layer counts as the type of its first input: what it computes in. (TensorRT-RTX's int8
convolutions, for one, read int8 and write float.)
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

LayerType = Literal["int8", "half", "float", "other"]

_TYPES: dict[str, LayerType] = {
    "int8": "int8",
    "half": "half",
    "fp16": "half",
    "float": "float",
    "fp32": "float",
}
_HEADS = ("Layers:", "Engine Layer Information:")
_DETAILED = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<rest>.*)")
_NAMES_ONLY = re.compile(r"^Layer\((?P<kind>[^)]*)\): (?P<name>.*?), Tactic: [^,]*,(?P<rest>.*)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_DATATYPE = re.compile(
    r"(?:Datatype: |\[)(?:[^}\]]*? )??(?P<type>Int8|Half|FP16|Float|FP32)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Layer:
    """One layer of an engine: its name, TensorRT's kind of it, the type it computes in, and the
    names of the graph's nodes in it, where the table tells them."""

    name: str
    kind: str
    type: LayerType
    nodes: tuple[str, ...] = ()
    is_convolution: bool = False


@dataclass(frozen=True)
class LayerCounts:
    """How many layers compute in which type; the rest of `total` moves shapes and integers."""

    total: int
    int8: int
    half: int
    float: int

    @classmethod
    def of(cls, layers: Iterable[Layer]) -> "LayerCounts":
        """Count layers by type."""
        types = [layer.type for layer in layers]
        return cls(len(types), types.count("int8"), types.count("half"), types.count("float"))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def is_layer_table(message: str) -> bool:
    """Whether a message of the build log is the table."""
    return message.lstrip().startswith(_HEADS)


def read_layer_table(message: str) -> tuple[Layer, ...]:
    """The layers in such a message, in order of execution; lines of other kinds are skipped."""
    layers = []
    for line in message.splitlines():
        if line.startswith("I/O Tensors"):
            break
        match = _DETAILED.match(line.strip()) or _NAMES_ONLY.match(line.strip())
        if match is not None:
            layers.append(_layer(match["name"], match["kind"], match["rest"]))
    return tuple(layers)


def _layer(name: str, kind: str, rest: str) -> Layer:
    _, _, metadata = rest.rpartition("Metadata: ")
    # TensorRT-RTX says correlation, fuses it under generated names, or makes 1x1 a product
    convolves = (
        "conv" in kind.lower()
        or kind == "correlation"
        or name.startswith("__myl_Corr")
        or "gemm_from_conv" in metadata
    )
    return Layer(name, kind, _type(rest), tuple(_NODE.findall(metadata)), convolves)


def _type(operands: str) -> LayerType:
    match = _DATATYPE.search(operands)
    return _TYPES[match["type"].lower()] if match else "other"
