"""Bodies of the Open Inference Protocol over HTTP: bytes to a request, a response to bytes.

A body is JSON, or JSON followed by the binary tensors in the order of the JSON, its length then in
the header Inference-Header-Content-Length.
"""

import json
from collections.abc import Mapping
from typing import Any

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.serving.protocol.tensors import (
    InferRequest,
    InferResponse,
    InputTensor,
    OutputRequest,
    kind,
    malformed,
    parse_classes,
    parse_priority,
    parse_shape,
    parse_timeout,
    raw_bytes,
    short,
    tensor_of_bytes,
    tensor_of_values,
)

LENGTH_HEADER = "inference-header-content-length"

_MAX_INPUTS = 16


def parse_infer(body: bytes, header_length: str | None) -> InferRequest:
    """Read the body of an inference request.

    Args:
        header_length: the header Inference-Header-Content-Length, None when not sent.

    Raises:
        Refusal: malformed, with the tensor and what was expected.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal()):
            raise malformed(f"{LENGTH_HEADER} {short(header_length)} is not a number of bytes")
        length = int(header_length)
        if length > len(body):
            raise malformed(f"{LENGTH_HEADER} is {length}, but the body has {len(body)} bytes")
    fields = json_object(body[:length], "the request")
    tail = memoryview(body)[length:]
    items = _objects(fields, "inputs")
    if not 1 <= len(items) <= _MAX_INPUTS:
        raise malformed(f"{len(items)} inputs, expected 1 to {_MAX_INPUTS}")
    inputs = []
    for item in items:
        size = _binary_size(item, len(tail), alone=len(items) == 1 and header_length is not None)
        inputs.append(_input(item, None if size is None else tail[:size]))
        tail = tail[size or 0 :]
    if tail:
        raise malformed(f"{len(tail)} bytes follow the last tensor")
    parameters = _mapping(fields, "parameters")
    binary = _boolean(parameters, "binary_data_output")
    return InferRequest(
        inputs=tuple(inputs),
        outputs=tuple(_output(item, binary=binary) for item in _objects(fields, "outputs")),
        id=_text(fields, "id", default=""),
        priority=parse_priority(parameters.get("priority", 0)),
        timeout_s=parse_timeout(parameters.get("timeout", 0)),
        binary_output=binary,
    )


def encode_infer(response: InferResponse) -> tuple[bytes, dict[str, str]]:
    """The body of an inference response and the headers that describe it."""
    tail: list[bytes] = []
    outputs = []
    for tensor in response.outputs:
        fields: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        data = ""
        if tensor.binary:
            tail.append(raw_bytes(tensor))
            fields["parameters"] = {"binary_data_size": len(tail[-1])}
        elif isinstance(tensor.values, tuple):
            fields["data"] = [element.decode() for element in tensor.values]
        else:
            data = f"[{_numbers(tensor.values)}]"
        outputs.append(_with(fields, "data", data) if data else json.dumps(fields))
    content = {"model_name": response.model, "model_version": response.version}
    if response.id:
        content["id"] = response.id
    text = _with(content, "outputs", f"[{','.join(outputs)}]").encode()
    if not tail:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", LENGTH_HEADER: str(len(text))}
    return b"".join([text, *tail]), headers


def json_object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object; `what` names it in the refusal."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise malformed(f"{what} is not JSON: {reason}") from error
    if not isinstance(fields, dict):
        raise malformed(f"{what} is {kind(fields)}, expected a JSON object")
    return fields


def _with(fields: Mapping[str, Any], key: str, text: str) -> str:
    """JSON of `fields` and one more, whose value is JSON already."""
    return f'{json.dumps(fields)[:-1]}, "{key}": {text}}}'


def _numbers(values: Float32s) -> str:
    """Each with nine digits, which tell every float32 from its neighbours, and with a point.

    A third of the time of `json.dumps`, which writes the seventeen that a float64 needs.
    """
    return ",".join(["%#.9g"] * values.size) % tuple(values.ravel().tolist())


def _input(item: Mapping[str, Any], raw: memoryview | None) -> InputTensor:
    name = _text(item, "name")
    datatype = _text(item, "datatype")
    shape = parse_shape(name, item.get("shape"))
    if raw is None:
        return tensor_of_values(name, datatype, shape, item.get("data"))
    if "data" in item:
        raise malformed(f"input {name!r}: both data and binary_data_size are given")
    return tensor_of_bytes(name, datatype, shape, raw)


def _binary_size(item: Mapping[str, Any], left: int, *, alone: bool) -> int | None:
    """Bytes of an input behind the JSON; None when its data is in the JSON."""
    size = _mapping(item, "parameters").get("binary_data_size")
    if size is None:
        return left if alone and "data" not in item else None
    if type(size) is not int or not 0 <= size <= left:
        raise malformed(
            f"input {short(item.get('name'))}: binary_data_size {short(size)}, but {left} bytes "
            "follow the JSON"
        )
    return size


def _output(item: Mapping[str, Any], *, binary: bool) -> OutputRequest:
    name = _text(item, "name")
    parameters = _mapping(item, "parameters")
    classes = 0
    if "classification" in parameters:
        classes = parse_classes(name, parameters["classification"])
    if "binary_data" in parameters:
        binary = _boolean(parameters, "binary_data")
    return OutputRequest(name, classes, binary)


def _objects(fields: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = fields.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise malformed(f"{key} is not a list of objects")
    return items


def _mapping(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key, {})
    if not isinstance(value, dict):
        raise malformed(f"{key} is {kind(value)}, expected an object")
    return value


def _text(fields: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise malformed(f"{key} is {kind(value)}, expected text")
    return value


def _boolean(fields: Mapping[str, Any], key: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise malformed(f"{key} is {kind(value)}, expected true or false")
    return value
