"""Calibration batches as onnxruntime's own quantizer wants them."""

from collections.abc import Iterable

import numpy as np


class PeerReader:
    """A CalibrationDataReader, which onnxruntime knows by its `get_next`, over decoded batches."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by the input's name; None at the end."""
        batch = next(self._left, None)
        return None if batch is None else {"input": batch}
