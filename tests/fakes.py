"""Sessions that answer from a script, for tests of what is done with answers."""

from collections.abc import Callable

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.manifest import input_spec, output_spec
from resdeploy.deploy.session import ClosesOnExit, check_batch
from resdeploy.deploy.specs import Backend, FeatureSpec, TensorSpec, Variant


def channel_means(batch: Float32s) -> Float32s:
    """(N, 3, H, W) to (N, 3): the network that answers with the strongest channel."""
    return np.asarray(batch.mean(axis=(2, 3), dtype=np.float32))


class FakeSession(ClosesOnExit):
    """A `Session` whose logits are what `answer` makes of a batch; `batches` counts the runs."""

    def __init__(
        self,
        answer: Callable[[Float32s], Float32s] = channel_means,
        *,
        size_px: int = 8,
        classes: int = 3,
        backend: Backend = "ort-cpu",
        variant: Variant = "fp32",
        threads: int = 1,
    ) -> None:
        self._answer = answer
        self.backend, self.variant, self.threads = backend, variant, threads
        self.input = input_spec(size_px, size_px)
        self.outputs: tuple[TensorSpec, ...] = (output_spec(classes),)
        self.output = self.outputs[-1]
        self.batches: list[int] = []
        self.closed = False

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, classes) float32."""
        check_batch(batch, self.input)
        self.batches.append(len(batch))
        return np.asarray(self._answer(batch), np.float32)

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """The one output by its name."""
        return {self.output.name: self.run(batch)}

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


# two maps of an input of 8x8 pixels
FEATURES = (FeatureSpec("C2", 2, 3, 4, 4), FeatureSpec("C3", 4, 2, 2, 2))


class FakeBackbone(FakeSession):
    """Every second pixel as C2, and every fourth of two channels, times `gain`, as C3."""

    def __init__(
        self,
        gain: float = 1.0,
        *,
        backend: Backend = "ort-cpu",
        variant: Variant = "fp32",
        threads: int = 1,
    ) -> None:
        super().__init__(backend=backend, variant=variant, threads=threads)
        self._gain = np.float32(gain)
        self.outputs = tuple(feature.tensor for feature in FEATURES)
        self.output = self.outputs[-1]

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, 8, 8) float32 to the last map."""
        return self.run_all(batch)[self.output.name]

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """Both maps by name."""
        check_batch(batch, self.input)
        return {"C2": batch[:, :, ::2, ::2], "C3": self._gain * batch[:, :2, ::4, ::4]}
