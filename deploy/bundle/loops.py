"""Finds loops in an ONNX file before ONNX Runtime sees it: one may be endless, and cannot be ended.

The file is walked as protobuf messages, whose fields of known length are skipped, so that weights
cost no time. Numbers of fields are those of onnx.proto3.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.reading import open_regular

_LOOPS = frozenset((b"Loop", b"Scan", b"SequenceMap"))
_MODEL_GRAPH, _MODEL_FUNCTIONS, _GRAPH_NODE, _FUNCTION_NODE = 7, 25, 1, 7
_NODE_OPERATOR, _NODE_ATTRIBUTE, _ATTRIBUTE_GRAPHS = 4, 5, (6, 11)
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_DEPTH_LIMIT = 16


def check_no_loops(path: Path) -> None:
    """Raise GraphError for a graph with loops; what is no ONNX file is left to ONNX Runtime.

    Raises:
        OSError: the file cannot be opened.
    """
    with open_regular(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                found = _loops(memoryview(whole).toreadonly())
        except ValueError:  # empty, or cut short
            return
    if found:
        raise GraphError(
            f"{path}: has the operator {found}, which may run for ever: resdeploy runs image "
            "classifiers, whose graphs have no loops"
        )


def _loops(model: memoryview) -> str:
    with model:
        for number, message in _messages(model):
            with message:
                nodes = {_MODEL_GRAPH: _GRAPH_NODE, _MODEL_FUNCTIONS: _FUNCTION_NODE}.get(number)
                found = "" if nodes is None else _loops_of_nodes(message, nodes, 0)
            if found:
                return found
    return ""


def _loops_of_nodes(graph: memoryview, nodes: int, depth: int) -> str:
    """The name of the first loop among the nodes of a graph, and in the branches of its Ifs."""
    if depth > _DEPTH_LIMIT:
        return "If in itself"
    for number, node in _messages(graph):
        if number != nodes:
            continue
        for field, value in _messages(node):
            if field == _NODE_OPERATOR and bytes(value) in _LOOPS:
                return bytes(value).decode()
            if field == _NODE_ATTRIBUTE:
                for kind, branch in _messages(value):
                    inside = kind in _ATTRIBUTE_GRAPHS
                    found = _loops_of_nodes(branch, _GRAPH_NODE, depth + 1) if inside else ""
                    if found:
                        return found
    return ""


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length, by their numbers; ValueError where cut short."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _LENGTH:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("cut short")
            yield tag >> 3, data[place : place + length]
            place += length
        elif kind == _VARINT:
            _, place = _varint(data, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind}")


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
