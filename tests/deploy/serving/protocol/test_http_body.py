"""Whatever bytes come, they are a request or a refusal that the sender can fix."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.serving.protocol.http_body import LENGTH_HEADER, encode_infer, parse_infer
from resdeploy.deploy.serving.protocol.tensors import (
    InferResponse,
    OutputTensor,
    parse_priority,
    parse_timeout,
)
from resdeploy.deploy.serving.refusal import Refusal

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_SHAPES = st.lists(st.integers(-1, 3), max_size=4) | _VALUES
_TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("input") | _VALUES,
        "datatype": st.sampled_from(("FP32", "BYTES", "INT8")) | _VALUES,
        "shape": _SHAPES,
        "data": _VALUES,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.integers(-1, 40) | _VALUES}
        ),
    },
)
_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=3) | _VALUES,
        "inputs": st.lists(_TENSORS, max_size=3) | _VALUES,
        "outputs": st.lists(_TENSORS, max_size=2) | _VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(("priority", "timeout", "binary_data_output")), _VALUES
        ),
    },
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    request=_REQUESTS,
    tail=st.binary(max_size=40),
    shift=st.integers(-3, 3),
    header=st.sampled_from(("right", "shifted", "none", "text")),
)
def test_any_framing_is_a_request_or_a_refusal(
    request: dict[str, Any], tail: bytes, shift: int, header: str
) -> None:
    head = json.dumps(request).encode()
    lengths = {"right": str(len(head)), "shifted": str(len(head) + shift), "text": "²"}
    try:
        parsed = parse_infer(head + tail, lengths.get(header))
    except Refusal as refusal:
        assert refusal.reason == "malformed"
        assert "\n" not in str(refusal) and len(str(refusal)) < 500
    else:
        for tensor in parsed.inputs:
            if isinstance(tensor.values, tuple):
                assert len(tensor.values) == np.prod(tensor.shape)
            else:
                assert tensor.values.shape == tensor.shape


@settings(max_examples=100, deadline=None, derandomize=True)
@given(body=st.binary(max_size=200), length=st.none() | st.integers(0, 200).map(str))
def test_any_bytes_are_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(Refusal):
        parse_infer(body, length)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(elements=st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_elements_of_bytes_come_back(elements: list[bytes]) -> None:
    tail = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    tensor = {"name": "input", "datatype": "BYTES", "shape": [len(elements)]}
    head = json.dumps({"inputs": [tensor]}).encode()
    assert parse_infer(head + tail, str(len(head))).inputs[0].values == tuple(elements)


def test_two_tensors_follow_in_the_order_of_the_json() -> None:
    first = np.arange(3, dtype="<f4")
    second = np.arange(4, dtype="<f4").reshape(2, 2)
    inputs = [
        {
            "name": name,
            "datatype": "FP32",
            "shape": list(values.shape),
            "parameters": {"binary_data_size": values.nbytes},
        }
        for name, values in (("a", first), ("b", second))
    ]
    head = json.dumps({"inputs": inputs}).encode()
    parsed = parse_infer(head + first.tobytes() + second.tobytes(), str(len(head)))
    for tensor, expected in zip(parsed.inputs, (first, second), strict=True):
        assert isinstance(tensor.values, np.ndarray)
        np.testing.assert_array_equal(tensor.values, expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
@example([1 / 3, 1e-30, -16777217.0, -0.0, 1.4e-45, 3.4028235e38])
def test_logits_keep_their_bits_in_json(values: list[float]) -> None:
    logits: Float32s = np.array([values], np.float32)
    output = OutputTensor("logits", "FP32", logits.shape, logits, binary=False)
    body, headers = encode_infer(InferResponse("m", "1", "", (output,)))
    assert LENGTH_HEADER not in headers and "id" not in json.loads(body)
    data = json.loads(body)["outputs"][0]["data"]
    assert np.array(data, np.float32).tobytes() == logits.tobytes()


def test_units_of_priority_and_timeout() -> None:
    assert parse_priority(3) == 3
    assert parse_timeout(1500) == 0.0015
    assert parse_timeout(0) == float("inf")
