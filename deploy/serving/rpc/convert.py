"""Messages of gRPC to plain values and back."""

import math
from typing import Any

import numpy as np

from resdeploy.deploy.serving.protocol.tensors import (
    InferRequest,
    InferResponse,
    InputTensor,
    OutputRequest,
    check_float,
    malformed,
    parse_classes,
    parse_priority,
    parse_shape,
    parse_timeout,
    raw_bytes,
    tensor_of_bytes,
)
from resdeploy.deploy.serving.rpc.messages import message_class


def request_of(message: Any) -> InferRequest:
    """A ModelInferRequest as plain values.

    Raises:
        Refusal: malformed.
    """
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise malformed(f"{len(raws)} raw_input_contents for {len(message.inputs)} inputs")
    inputs = tuple(
        _input(tensor, raws[index] if raws else None) for index, tensor in enumerate(message.inputs)
    )
    outputs = []
    for output in message.outputs:
        classes = _parameter(output.parameters, "classification")
        count = 0 if classes is None else parse_classes(output.name, classes)
        outputs.append(OutputRequest(output.name, count, binary=True))
    return InferRequest(
        inputs=inputs,
        outputs=tuple(outputs),
        id=message.id,
        priority=parse_priority(_parameter(message.parameters, "priority") or 0),
        timeout_s=parse_timeout(_parameter(message.parameters, "timeout") or 0),
        binary_output=True,
    )


def response_of(response: InferResponse) -> Any:
    """A ModelInferResponse, its outputs in the binary representation."""
    return message_class("ModelInferResponse")(
        model_name=response.model,
        model_version=response.version,
        id=response.id,
        outputs=[
            {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
            for tensor in response.outputs
        ],
        raw_output_contents=[raw_bytes(tensor) for tensor in response.outputs],
    )


def _input(tensor: Any, raw: bytes | None) -> InputTensor:
    shape = parse_shape(tensor.name, list(tensor.shape))
    if raw is not None:
        if tensor.HasField("contents"):
            raise malformed(f"input {tensor.name!r}: both contents and raw_input_contents")
        return tensor_of_bytes(tensor.name, tensor.datatype, shape, raw)
    contents = tensor.contents
    if tensor.datatype == "BYTES":
        values: Any = tuple(contents.bytes_contents)
    else:
        check_float(tensor.name, tensor.datatype)
        values = np.array(contents.fp32_contents, np.float32)
    if len(values) != math.prod(shape):
        raise malformed(
            f"input {tensor.name!r}: {len(values)} elements, expected {math.prod(shape)}"
        )
    if tensor.datatype != "BYTES":
        values = values.reshape(shape)
    return InputTensor(tensor.name, tensor.datatype, shape, values)


def _parameter(parameters: Any, key: str) -> Any:
    """A parameter's value, None when it is not given."""
    if key not in parameters:
        return None
    found = parameters[key]
    return getattr(found, found.WhichOneof("parameter_choice") or "", None)
