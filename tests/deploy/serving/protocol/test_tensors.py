"""Tensors of the protocol: both representations, and every way to get them wrong."""

import base64
import math
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from resdeploy.deploy.serving.protocol import tensors
from resdeploy.deploy.serving.protocol.tensors import (
    OutputTensor,
    parse_classes,
    parse_priority,
    parse_shape,
    parse_timeout,
    raw_bytes,
    tensor_of_bytes,
    tensor_of_values,
)
from resdeploy.deploy.serving.refusal import Refusal


def _refused(make: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        make(*arguments)
    assert refusal.value.reason == "malformed"
    return str(refusal.value)


def test_floats_are_little_endian_and_row_major() -> None:
    raw = struct.pack("<6f", 0, 1, 2, 3, 4, 5)
    found = tensor_of_bytes("x", "FP32", (2, 3), raw)
    np.testing.assert_array_equal(found.values, [[0, 1, 2], [3, 4, 5]])
    assert isinstance(found.values, np.ndarray)
    assert raw_bytes(OutputTensor("y", "FP32", (2, 3), found.values, True)) == raw


def test_floats_at_an_odd_address_become_aligned() -> None:
    behind_json = memoryview(b"}" + struct.pack("<2f", 1.5, -2))[1:]
    values = tensor_of_bytes("x", "FP32", (2,), behind_json).values
    assert isinstance(values, np.ndarray) and values.flags.aligned
    np.testing.assert_array_equal(values, [1.5, -2])


def test_elements_have_their_length_in_front() -> None:
    raw = b"\x02\0\0\0ab" + b"\0\0\0\0" + b"\x01\0\0\0c"
    assert tensor_of_bytes("x", "BYTES", (3,), raw).values == (b"ab", b"", b"c")
    assert raw_bytes(OutputTensor("y", "BYTES", (3, 1), (b"ab", b"", b"c"), True)) == raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x02\0\0\0ab\x01", "1 bytes are left, no whole length"),
        (b"\x05\0\0\0ab", "element 0 has 2 bytes, its length says 5"),
        (b"\x02\0\0\0ab", "1 elements, expected 2"),
    ],
)
def test_elements_that_do_not_fit_are_refused(raw: bytes, message: str) -> None:
    assert message in _refused(tensor_of_bytes, "x", "BYTES", (2,), raw)


def test_a_wrong_number_of_bytes_or_datatype_is_refused() -> None:
    assert "7 bytes, expected 8 for [2]" in _refused(tensor_of_bytes, "x", "FP32", (2,), b"\0" * 7)
    assert "datatype 'INT8', expected FP32" in _refused(tensor_of_bytes, "x", "INT8", (2,), b"\0\0")


def test_numbers_may_be_nested_or_flat() -> None:
    flat, nested = ([1, 2.5, 3, 4], [[1, 2.5], [3, 4]])
    for data in (flat, nested):
        values = tensor_of_values("x", "FP32", (2, 2), data).values
        np.testing.assert_array_equal(values, [[1, 2.5], [3, 4]])
    infinite = tensor_of_values("x", "FP32", (1,), [1e300]).values
    assert isinstance(infinite, np.ndarray) and np.isinf(infinite).all()  # refused by who runs it


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data is missing, expected a list"),
        ("12", "data is a JSON str, expected a list"),
        ([[1], [2, 3]], "nested unevenly"),
        (["1", "2"], "not a number"),
        ([True, False], "not a number"),
        ([1, 2, 3], "3 numbers, expected 2"),
    ],
)
def test_what_are_no_numbers_is_refused(data: Any, message: str) -> None:
    assert message in _refused(tensor_of_values, "x", "FP32", (2,), data)


def test_encoded_images_are_base64_text() -> None:
    text = base64.b64encode(b"\xff\xd8").decode()
    for element in (text, {"b64": text}):
        assert tensor_of_values("x", "BYTES", (1,), [element]).values == (b"\xff\xd8",)
    wrong: list[Any] = ["%%%", "ä", {"other": text}, None, 1234]
    for element in wrong:
        assert "not base64 text" in _refused(tensor_of_values, "x", "BYTES", (1,), [element])
    assert "1 elements, expected 2" in _refused(tensor_of_values, "x", "BYTES", (2,), [text])


def test_a_shape_is_one_to_eight_whole_numbers() -> None:
    assert parse_shape("x", [1, 3, 8]) == (1, 3, 8)
    for shape in ([], [0], [-1, 3], [1.0], [True], "13", None, [1] * 9, [2**31]):
        assert "expected whole numbers from 1" in _refused(parse_shape, "x", shape)


def test_parameters_are_checked() -> None:
    assert (parse_priority(0), parse_priority(7)) == (0, 7)
    assert (parse_timeout(0), parse_timeout(1_500_000)) == (math.inf, 1.5)
    assert parse_classes("y", 3) == 3
    wrong: list[tuple[Callable[..., Any], Any]] = [
        *((parse_priority, value) for value in (-1, 1.0, True, 2**32)),
        *((parse_timeout, value) for value in (-1, "5", 2**63)),
        *((partial(parse_classes, "y"), value) for value in (0, None, 2.0)),
    ]
    for parse, value in wrong:
        _refused(parse, value)


def test_a_message_quotes_a_bounded_part_of_a_value() -> None:
    assert tensors.short([1, 2]) == "[1, 2]"
    assert len(tensors.short("x" * 10_000)) == 61
