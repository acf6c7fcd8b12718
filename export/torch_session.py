"""PyTorch as a session: the reference every other runtime is compared with."""

from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from resdeploy.deploy.manifest import input_spec, output_spec
from resdeploy.deploy.session import check_batch

_BATCH = 32


class TorchSession:
    """A `Session` over an `nn.Module` in evaluation mode, on the CPU, in float32."""

    def __init__(self, module: torch.nn.Module, *, size_px: tuple[int, int], width: int) -> None:
        """`width` is the number of classes, or of features for a network without a head."""
        self._module = module.eval()
        self.input = input_spec(*size_px)
        self.output = output_spec(width)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) float32 to (N, classes) float32, at most 32 pictures at a time."""
        check_batch(batch, self.input)
        with torch.inference_mode():
            parts = [
                self._module(torch.from_numpy(batch[start : start + _BATCH])).numpy()
                for start in range(0, len(batch), _BATCH)
            ]
        return np.concatenate(parts)

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> "TorchSession":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
