"""gRPC's messages become the requests that HTTP gives, and answers become messages."""

import math
import struct
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.serving.protocol.tensors import InferResponse, OutputRequest, OutputTensor
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.rpc.convert import request_of, response_of
from resdeploy.deploy.serving.rpc.messages import message_class

_RAW = struct.pack("<2f", 1.5, -2)


def _message(**fields: Any) -> Any:
    return message_class("ModelInferRequest")(model_name="colours", **fields)


def _input(**fields: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP32", "shape": [2], **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": [_input()], "raw_input_contents": [_RAW]},
        {"inputs": [_input(contents={"fp32_contents": [1.5, -2]})]},
    ],
)
def test_numbers_come_raw_or_one_by_one(fields: dict[str, Any]) -> None:
    request = request_of(_message(id="7", **fields))
    (tensor,) = request.inputs
    np.testing.assert_array_equal(np.asarray(tensor.values), [1.5, -2])
    assert (tensor.name, tensor.shape, request.id, request.binary_output) == ("input", (2,), "7", 1)
    assert (request.priority, request.timeout_s) == (0, math.inf)


def test_images_and_parameters_come_through() -> None:
    image = _input(datatype="BYTES", shape=[1], contents={"bytes_contents": [b"\xff\xd8"]})
    classes = {"classification": {"int64_param": 2}}
    request = request_of(
        _message(
            inputs=[image],
            outputs=[{"name": "logits", "parameters": classes}],
            parameters={"priority": {"uint64_param": 3}, "timeout": {"int64_param": 2_000_000}},
        )
    )
    assert request.inputs[0].values == (b"\xff\xd8",)
    assert request.outputs == (OutputRequest("logits", 2, binary=True),)
    assert (request.priority, request.timeout_s) == (3, 2.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": [_input()] * 2, "raw_input_contents": [_RAW]}, "1 raw_input_contents for 2"),
        (
            {
                "inputs": [_input(contents={"fp32_contents": [1, 2]})],
                "raw_input_contents": [_RAW],
            },
            "both contents and raw_input_contents",
        ),
        ({"inputs": [_input(contents={"fp32_contents": [1]})]}, "1 elements, expected 2"),
        ({"inputs": [_input(datatype="INT64")]}, "datatype 'INT64', expected FP32"),
        ({"inputs": [_input(shape=[0])]}, "expected whole numbers from 1"),
        ({"parameters": {"priority": {"string_param": "high"}}}, "priority 'high'"),
    ],
)
def test_malformed_messages_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message) as refusal:
        request_of(_message(**fields))
    assert refusal.value.reason == "malformed"


def test_an_answer_is_raw() -> None:
    logits = np.array([[1.5, -2]], np.float32)
    outputs = (
        OutputTensor("logits", "FP32", (1, 2), logits, True),
        OutputTensor("best", "BYTES", (1, 1), (b"1.5:0:red",), True),
    )
    message = response_of(InferResponse("colours", "2", "7", outputs))
    assert (message.model_name, message.model_version, message.id) == ("colours", "2", "7")
    assert [(one.name, list(one.shape)) for one in message.outputs] == [
        ("logits", [1, 2]), ("best", [1, 1]),
    ]  # fmt: skip
    assert list(message.raw_output_contents) == [_RAW, b"\x09\0\0\0" + b"1.5:0:red"]
