"""A backbone as a session of one output: all feature maps of an image in one row.

So whatever runs sessions over images runs backbones too; `metrics.feature_maps.split_maps` takes a
row apart again.
"""

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.metrics.feature_maps import flat_width
from resdeploy.deploy.session import ClosesOnExit, Session
from resdeploy.deploy.specs import TensorSpec


class FlatFeatures(ClosesOnExit):
    """A `Session` that gives (N, values) float32; closing it closes the backbone's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.backend, self.variant = session.backend, session.variant
        self.threads, self.input = session.threads, session.input
        self.maps = session.outputs
        self.output = TensorSpec("maps", ("batch", flat_width(self.maps)), "float32")
        self.outputs = (self.output,)

    def run(self, batch: Float32s) -> Float32s:
        """(N, 3, H, W) float32 to (N, values) float32."""
        maps = self._session.run_all(batch)
        return np.concatenate([values.reshape(len(batch), -1) for values in maps.values()], axis=1)

    def run_all(self, batch: Float32s) -> dict[str, Float32s]:
        """The one output by its name."""
        return {self.output.name: self.run(batch)}

    def close(self) -> None:
        """Close the backbone's session."""
        self._session.close()
