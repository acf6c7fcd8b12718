"""Everything a user can cause and fix, as one tree.

ResdeployError                    one line for the user, exit code 1
├── CheckpointError               not a checkpoint, keys that do not fit, unknown architecture
├── GraphError                    an ONNX graph that is broken, foreign or not equal to PyTorch
├── CalibrationError              no images, unreadable images, ranges of another graph
├── EngineError                   TensorRT refused the graph, or the engine is for another machine
├── InputError                    an image, tensor, option or file the user gave is wrong
├── BundleError                   bundle missing, incomplete, of a newer format, or altered
├── MissingDependencyError        (also an ImportError) names the extra that brings the library
└── BackendError                  the backend or hardware asked for is not here, exit code 4

A message has three parts: what failed (with its path or tensor), what was got and what was
expected, and what to do next. One line, lower case, no full stop at the end.
Programmers' mistakes stay ValueError and TypeError.
"""

import unicodedata

# What Unicode lets change the direction of the text around it (its Trojan Source report).
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Controls, surrogates, line and paragraph separators.
_HARMFUL = frozenset(("Cc", "Cs", "Zl", "Zp"))

# Exit statuses of the command, 0 apart. Click itself ends with 2 on wrong usage.
EXIT_FIXABLE = 1
EXIT_GATE_FAILED = 3
EXIT_BACKEND_MISSING = 4
# 128 + the signal's number, as a shell reports a process that a signal ended
EXIT_READER_LEFT = 141


class ResdeployError(Exception):
    """Base of every error a user can cause and fix; `exit_code` is the command's exit status."""

    exit_code: int = EXIT_FIXABLE


class CheckpointError(ResdeployError):
    """The PyTorch file cannot be read, or no known architecture fits its tensors."""


class GraphError(ResdeployError):
    """An ONNX graph is broken, not one of ours, or does not compute what PyTorch computes."""


class CalibrationError(ResdeployError):
    """Calibration images or ranges cannot be used."""


class EngineError(ResdeployError):
    """TensorRT refused to build, or an engine does not belong to this machine."""


class InputError(ResdeployError):
    """An image, tensor, option or file given by the user is wrong."""


class BundleError(ResdeployError):
    """A bundle is missing, incomplete, of a newer format, or its files were altered."""


class MissingDependencyError(ResdeployError, ImportError):
    """An optional library is not installed; the message names the command that brings it."""

    def __init__(self, message: str, *, exit_code: int = EXIT_FIXABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BackendError(ResdeployError):
    """The backend or the hardware asked for is not on this machine."""

    exit_code = EXIT_BACKEND_MISSING


def first_line(error: BaseException) -> str:
    """The first line of a foreign exception that says something, for a one-line message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def shown(text: object) -> str:
    """`text` on one line, with whatever a terminal would obey or not show written as an escape."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(_escaped(character) for character in plain)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in _HARMFUL or character in _DIRECTIONS:
        return character.encode("unicode_escape", "surrogatepass").decode()
    return character
