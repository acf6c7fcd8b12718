"""Plain values to protobuf's text format, in which Triton wants its config.pbtxt.

A dict is a message, a list repeats its field, `Constant` is the name of an enum's value. Everything
else is written as protobuf's own printer does; text is escaped byte by byte, as the format has it.
"""

from collections.abc import Iterator, Mapping
from typing import Any


class Constant(str):
    """The name of an enum's value, e.g. TYPE_FP32: written without quotes."""


def config_text(fields: Mapping[str, Any]) -> str:
    """The text of a message.

    Raises:
        TypeError: a value that is no text, number, bool, list or dict.
    """
    return "\n".join(_lines(fields, "")) + "\n"


def _lines(fields: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in fields.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, Constant):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(_escaped(byte) for byte in value.encode()) + '"'
    raise TypeError(f"{type(value).__name__} has no place in a config.pbtxt")


def _escaped(byte: int) -> str:
    character = chr(byte)
    if character in '\\"':
        return f"\\{character}"
    return character if 0x20 <= byte < 0x7F else f"\\{byte:03o}"
