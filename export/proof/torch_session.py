"""PyTorch as a session: what the written graphs are compared with."""

from threading import Lock
from typing import Literal

import numpy as np
import torch

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.session import ClosesOnExit, check_batch
from resdeploy.deploy.specs import TensorSpec, Variant
from resdeploy.export.graph.fold_input import InputAffine

_BATCH = 32


class BeforeInputFold(torch.nn.Module):
    """A network that normalizes its input, asked with inputs that are normalized already.

    The graph's preprocessing does s · x + t for it (`fold_input`), so x = (input − t) / s here.
    """

    def __init__(self, module: torch.nn.Module, affine: InputAffine) -> None:
        super().__init__()
        self.module, self.affine = module, affine

    def forward(self, normalized: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to what the network gives."""
        s, t = (
            torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1)
            for values in (self.affine.scale, self.affine.shift)
        )
        logits: torch.Tensor = self.module(((normalized.double() - t) / s).to(normalized.dtype))
        return logits


class TorchSession(ClosesOnExit):
    """A `Session` over an `nn.Module` in evaluation mode, on the CPU, in float32."""

    def __init__(
        self, module: torch.nn.Module, input: TensorSpec, outputs: tuple[TensorSpec, ...]
    ) -> None:
        """The module gives the one output, or a tuple of several in the order of `outputs`."""
        self._module = module.eval()
        # PyTorch shares one run among all cores; several at once would only wait for each other
        self._one_at_a_time = Lock()
        self.backend: Literal["pytorch"] = "pytorch"
        self.variant: Variant = "fp32"
        self.threads: int | None = None
        self.input, self.outputs = input, outputs
        self.output = outputs[-1]

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, classes) float32, or a backbone's last map."""
        return self.run_all(batch)[self.output.name]

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """Every output by its name; the module sees at most 32 images at a time."""
        check_batch(batch, self.input)
        with self._one_at_a_time, torch.inference_mode():
            parts = [
                self._outputs(torch.from_numpy(batch[start : start + _BATCH]))
                for start in range(0, len(batch), _BATCH)
            ]
        return {
            output.name: np.concatenate(values)
            for output, values in zip(self.outputs, zip(*parts, strict=True), strict=True)
        }

    def _outputs(self, batch: torch.Tensor) -> list[Float32s]:
        found = self._module(batch)
        return [values.numpy() for values in (found if isinstance(found, tuple) else (found,))]

    def close(self) -> None:
        """Nothing to release."""


def torch_session(module: torch.nn.Module, manifest: Manifest) -> TorchSession:
    """The module as a session with the manifest's outputs: logits, or a backbone's maps."""
    maps = tuple(feature.tensor for feature in manifest.features)
    return TorchSession(module, manifest.input, maps or (manifest.output,))
