"""Opens whatever runs a classifier: a bundle or a lone ONNX file, on the backend asked for.

A session takes (N, 3, H, W) float32 and gives (N, classes) float32, or a backbone's feature maps,
each (N, C, h, w) float32. It is safe to call from several threads. PyTorch
(export/proof/torch_session.py) and a recorded reference are sessions too.
"""

from abc import ABC, abstractmethod
from math import prod
from types import TracebackType
from typing import Literal, Protocol, TypeVar

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.specs import Backend, TensorSpec, Variant

# What a core of a CPU takes at a time: the tensors of more pixels leave its cache, and their memory
# goes back to the system after each run and is cleared again for the next. MobileNetV2 in int8, as
# the graph says, takes 7.3 ms for 1 image of 224 x 224 pixels, 8.7 ms each for 2, 19 ms for 8.
_PIXELS_AT_ONCE, _MOST_AT_ONCE = 1 << 16, 8

_Closing = TypeVar("_Closing", bound="ClosesOnExit")


class Session(Protocol):
    """Anything that turns a batch into logits; a context manager that releases on exit."""

    @property
    def backend(self) -> Backend | Literal["pytorch"]:
        """What runs the network."""
        ...

    @property
    def variant(self) -> Variant:
        """The bundle's variant that runs; PyTorch runs what became fp32."""
        ...

    @property
    def threads(self) -> int | None:
        """CPU threads of one run; None for all cores, and on a GPU."""
        ...

    @property
    def input(self) -> TensorSpec:
        """The one input, (batch, 3, H, W) float32."""
        ...

    @property
    def output(self) -> TensorSpec:
        """The one output, (batch, classes or features) float32; of feature maps the last."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """All outputs: a backbone has several."""
        ...

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, classes) float32; the result belongs to the caller.

        Raises:
            InputError: wrong shape or dtype.
        """
        ...

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """Every output by its name, in the order of `outputs`; else as `run`."""
        ...

    def close(self) -> None:
        """Release memory and threads; `run` must not be called afterwards."""
        ...

    def __enter__(self) -> "Session": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ClosesOnExit(ABC):
    """The context manager of whatever has `close`."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held."""

    def __enter__(self: _Closing) -> _Closing:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def sizes_of(spec: TensorSpec) -> tuple[int, ...]:
    """The sizes of a tensor without its batch axis, e.g. (3, 224, 224)."""
    return tuple(int(size) for size in spec.shape[1:])


def images_at_once(spec: TensorSpec) -> int:
    """Images of this input (N, C, H, W) that a session with one thread runs fastest together."""
    return min(_MOST_AT_ONCE, max(1, _PIXELS_AT_ONCE // prod(sizes_of(spec)[1:])))


def gives_maps(session: Session) -> bool:
    """Whether the outputs are feature maps (N, C, h, w)."""
    return len(session.output.shape) == 4


def check_batch(batch: Float32s, spec: TensorSpec) -> None:
    """Raise InputError unless `batch` is (N >= 1, *sizes of the spec) float32."""
    expected = sizes_of(spec)
    if batch.dtype == np.float32 and batch.shape[1:] == expected and len(batch):
        return
    raise InputError(
        f"input {spec.name}: got {batch.dtype} of shape {batch.shape}, expected float32 of shape "
        f"(N, {', '.join(map(str, expected))}) with N >= 1"
    )
