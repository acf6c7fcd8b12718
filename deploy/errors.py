"""Everything a user can cause and fix, as one tree.

ResdeployError                    one line for the user, exit code 1
├── CheckpointError               not a checkpoint, keys that do not fit, unknown architecture
├── GraphError                    an ONNX graph that is broken, foreign or not equal to PyTorch
├── CalibrationError              no pictures, unreadable pictures, ranges of another graph
├── EngineError                   TensorRT refused the graph, or the engine is for another machine
├── InputError                    a picture, tensor, option or file the user gave is wrong
├── BundleError                   bundle missing, incomplete, of a newer format, or altered
├── MissingDependencyError        (also an ImportError) names the extra that brings the library
└── BackendError                  the backend or hardware asked for is not here, exit code 4

A message has three parts: what failed (with its path or tensor), what was got and what was
expected, and what to do next. One line, lower case, no full stop at the end.
Programmers' mistakes stay ValueError and TypeError.
"""


class ResdeployError(Exception):
    """Base of every error a user can cause and fix; `exit_code` is the command's exit status."""

    exit_code: int = 1


class CheckpointError(ResdeployError):
    """The PyTorch file cannot be read, or no known architecture fits its tensors."""


class GraphError(ResdeployError):
    """An ONNX graph is broken, not one of ours, or does not compute what PyTorch computes."""


class CalibrationError(ResdeployError):
    """Calibration pictures or ranges cannot be used."""


class EngineError(ResdeployError):
    """TensorRT refused to build, or an engine does not belong to this machine."""


class InputError(ResdeployError):
    """A picture, tensor, option or file given by the user is wrong."""


class BundleError(ResdeployError):
    """A bundle is missing, incomplete, of a newer format, or its files were altered."""


class MissingDependencyError(ResdeployError, ImportError):
    """An optional library is not installed; the message names the command that brings it."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BackendError(ResdeployError):
    """The backend or the hardware asked for is not on this machine."""

    exit_code = 4
