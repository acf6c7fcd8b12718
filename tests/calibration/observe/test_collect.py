"""One pass shows every accumulator exactly the values that ONNX Runtime computes."""

from typing import Literal

import numpy as np
import onnx
import onnx.parser
import pytest

from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.ranges.observers import Histogram
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import CalibrationError, GraphError

_MODEL = onnx.parser.parse_model("""
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3, 4, 4] input) => (float[N, 3, 4, 4] logits)
<float[3, 3, 1, 1] w = {2,0,0, 0,3,0, 0,0,-1}> {
  [conv] y = Conv(input, w)
  [relu] logits = Relu(y)
}
""")


class _Keep:
    needs: Literal["whole"] = "whole"

    def __init__(self) -> None:
        self.seen: list[Float32s] = []

    def update(self, values: Float32s) -> None:
        self.seen.append(values.copy())


def _batches(*sizes: int) -> list[Float32s]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((size, 3, 4, 4), np.float32) for size in sizes]


def test_values_of_every_batch_also_when_the_size_changes() -> None:
    batches = _batches(4, 4, 4, 3, 4)
    keep = {"input": _Keep(), "y": _Keep(), "logits": _Keep()}
    counted: list[int] = []
    images = collect(
        _MODEL, batches, {name: [k] for name, k in keep.items()}, progress=counted.append
    )
    assert images == 19
    assert counted == [4, 8, 12, 15, 19]
    factor = np.array([2, 3, -1], np.float32)[:, None, None]
    for number, batch in enumerate(batches):
        np.testing.assert_array_equal(keep["input"].seen[number], batch)
        np.testing.assert_allclose(keep["y"].seen[number], batch * factor, rtol=1e-6)
        np.testing.assert_allclose(
            keep["logits"].seen[number], np.maximum(batch * factor, 0), rtol=1e-6
        )


def test_only_the_input() -> None:
    keep = _Keep()
    assert collect(_MODEL, _batches(2), {"input": [keep]}) == 2
    assert len(keep.seen) == 1


def test_several_accumulators_of_one_tensor() -> None:
    histogram, keep = Histogram(), _Keep()
    collect(_MODEL, _batches(2, 2), {"y": [*histogram.parts, keep]})
    assert histogram.extremes.high == max(float(values.max()) for values in keep.seen)


def test_not_finite_names_tensor_and_images() -> None:
    batches = _batches(2, 2)
    batches[1][1, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match=r"tensor 'y' has NaN .* on images 2 to 3"):
        collect(_MODEL, batches, {"y": Histogram().parts})


def test_no_images() -> None:
    with pytest.raises(CalibrationError, match="no image"):
        collect(_MODEL, [], {"y": Histogram().parts})


def test_tensor_of_another_graph() -> None:
    with pytest.raises(GraphError, match="no tensor 'elsewhere'"):
        collect(_MODEL, _batches(1), {"elsewhere": Histogram().parts})


def test_interrupt_passes_through() -> None:
    def interrupt(images: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(_MODEL, _batches(1, 1), {"y": Histogram().parts}, progress=interrupt)
