"""The graph as its file has it, as a session: what everything made of it is compared with."""

from threading import Lock

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.manifest import input_spec, output_spec
from resdeploy.deploy.ort import open_graph, session_options
from resdeploy.deploy.session import ClosesOnExit, check_batch
from resdeploy.deploy.specs import Backend, Variant
from resdeploy.export.foreign.read import ForeignGraph, with_outputs
from resdeploy.export.graph.fold_input import InputAffine


class OriginalGraph(ClosesOnExit):
    """A `Session` over a `ForeignGraph`, on the CPU, without any edit of the graph.

    Axes are exchanged, and images handed over in the batches the graph insists on, here in NumPy,
    so that no rewrite of the graph can hide behind the same rewrite of what it is compared with.
    """

    def __init__(self, foreign: ForeignGraph, affine: InputAffine | None = None) -> None:
        """`affine`: what was taken off the graph's input, to be undone before it is asked."""
        self._foreign, self._affine = foreign, affine
        graph = with_outputs(foreign.model, [foreign.logits]).SerializeToString()
        self._session = open_graph(graph, "ort-cpu", session_options())
        # one run uses all cores; several at once would only wait for each other
        self._one_at_a_time = Lock()
        self.backend: Backend = "ort-cpu"
        self.variant: Variant = "fp32"
        self.threads: int | None = None
        self.input = input_spec(*foreign.size_px)
        self.output = output_spec(foreign.classes)
        self.outputs = (self.output,)

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, classes) float32."""
        check_batch(batch, self.input)
        images = batch if self._affine is None else _before(batch, self._affine)
        if self._foreign.layout == "NHWC":
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        size = self._foreign.batch or len(images)
        with self._one_at_a_time:
            parts = [
                self._run(images[start : start + size], size)
                for start in range(0, len(images), size)
            ]
        return np.concatenate(parts)

    def _run(self, images: Float32s, size: int) -> Float32s:
        """At most `size` images, the last one repeated where the graph insists on more."""
        missing = size - len(images)
        full = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        (logits,) = self._session.run(None, {self._foreign.input: full})
        found: Float32s = logits.reshape(size, -1)[: len(images)]
        return found

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """The one output by its name."""
        return {self.output.name: self.run(batch)}

    def close(self) -> None:
        """Release the session; a later `run` fails."""
        self._session = None


def _before(batch: Float32s, affine: InputAffine) -> Float32s:
    """x where the batch is s · x + t."""
    scale, shift = (
        np.array(values, np.float64).reshape(1, 3, 1, 1) for values in (affine.scale, affine.shift)
    )
    return ((batch.astype(np.float64) - shift) / scale).astype(np.float32)
