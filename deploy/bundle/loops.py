"""Finds loops in an ONNX file before ONNX Runtime sees it: one may be endless, and cannot be ended.

The file is walked as protobuf messages, whose fields of known length are skipped, so that weights
cost no time. Numbers of fields are those of onnx.proto3.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.reading import open_regular

_LOOPS = frozenset((b"Loop", b"Scan", b"SequenceMap"))
_MODEL_GRAPH, _MODEL_FUNCTIONS, _GRAPH_NODE, _FUNCTION_NODE = 7, 25, 1, 7
_NODE_OPERATOR, _NODE_ATTRIBUTE, _ATTRIBUTE_GRAPHS = 4, 5, (6, 11)
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_DEPTH_LIMIT = 16
_HEAD_BYTES = 20  # of a field: its tag and its length take ten bytes at most


def check_no_loops(path: Path, file: IO[bytes] | None = None) -> None:
    """Raise GraphError for a graph with loops; what is no ONNX file is left to ONNX Runtime.

    `file` is the one at `path` where it is open already.

    Raises:
        OSError: the file cannot be opened.
    """
    with open_regular(path) if file is None else nullcontext(file) as opened:
        try:
            found = _loops(opened)
        except ValueError:  # empty, or cut short
            return
    if found:
        raise GraphError(
            f"{path}: has the operator {found}, which may run for ever: resdeploy runs image "
            "classifiers, whose graphs have no loops"
        )


def _loops(file: IO[bytes]) -> str:
    """Nodes are read, weights are passed over; a map of the file would end Python by SIGBUS where
    somebody cuts it short meanwhile."""
    for number, start, stop in _messages_on_disk(file, 0, file.seek(0, os.SEEK_END)):
        nodes = {_MODEL_GRAPH: _GRAPH_NODE, _MODEL_FUNCTIONS: _FUNCTION_NODE}.get(number)
        if nodes is None:
            continue
        for inner, begin, end in _messages_on_disk(file, start, stop):
            file.seek(begin)
            found = _loops_of_node(memoryview(file.read(end - begin)), 0) if inner == nodes else ""
            if found:
                return found
    return ""


def _loops_of_node(node: memoryview, depth: int) -> str:
    """The name of a loop: that of the node itself, or of the first in the branches of an If."""
    if depth > _DEPTH_LIMIT:
        return "If in itself"
    for field, value in _messages(node):
        if field == _NODE_OPERATOR and bytes(value) in _LOOPS:
            return bytes(value).decode()
        branches = _messages(value) if field == _NODE_ATTRIBUTE else ()
        for kind, branch in branches:
            inside = _messages(branch) if kind in _ATTRIBUTE_GRAPHS else ()
            for number, inner in inside:
                found = _loops_of_node(inner, depth + 1) if number == _GRAPH_NODE else ""
                if found:
                    return found
    return ""


def _messages_on_disk(file: IO[bytes], place: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """`_messages` of a part of a file: their numbers, and where they begin and end."""
    while place < stop:
        file.seek(place)
        number, begin, end = _field(memoryview(file.read(_HEAD_BYTES)), 0)
        begin, end = begin + place, end + place
        if end > stop:
            raise ValueError("cut short")
        if number:
            yield number, begin, end
        place = end


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length, by their numbers; ValueError where cut short."""
    place = 0
    while place < len(data):
        number, begin, end = _field(data, place)
        if end > len(data):
            raise ValueError("cut short")
        if number:
            yield number, data[begin:end]
        place = end


def _field(data: memoryview, place: int) -> tuple[int, int, int]:
    """The number of a field, 0 of one without a length, and where its content begins and ends."""
    tag, place = _varint(data, place)
    kind = tag & 7
    if kind == _LENGTH:
        length, place = _varint(data, place)
        return tag >> 3, place, place + length
    if kind == _VARINT:
        _, place = _varint(data, place)
    elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
        place += 8 if kind == _EIGHT_BYTES else 4
    else:
        raise ValueError(f"wire type {kind}")
    return 0, place, place


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("cut short")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than ten bytes")
