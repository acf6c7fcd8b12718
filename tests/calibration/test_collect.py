"""One pass shows every accumulator exactly the values that ONNX Runtime computes."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest

from resdeploy.calibration.collect import collect
from resdeploy.calibration.observers import Extremes, Histogram
from resdeploy.calibration.plan import plan
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
    def __init__(self) -> None:
        self.seen: list[npt.NDArray[np.float32]] = []

    def update(self, values: npt.NDArray[np.float32]) -> None:
        self.seen.append(values.copy())


def _batches(*sizes: int) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((size, 3, 4, 4), np.float32) for size in sizes]


def test_values_of_every_batch_also_when_the_size_changes() -> None:
    batches = _batches(4, 4, 4, 3, 4)
    keep = {"input": _Keep(), "y": _Keep(), "logits": _Keep()}
    counted: list[int] = []
    pictures = collect(
        _MODEL, batches, {name: [k] for name, k in keep.items()}, progress=counted.append
    )
    assert pictures == 19
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
    collect(_MODEL, _batches(2, 2), {"y": [histogram, keep]})
    assert histogram.extremes.high == max(float(values.max()) for values in keep.seen)


def test_not_finite_names_tensor_and_pictures() -> None:
    batches = _batches(2, 2)
    batches[1][1, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match=r"tensor 'y' has NaN .* on pictures 2 to 3"):
        collect(_MODEL, batches, {"y": [Histogram()]})


def test_no_pictures() -> None:
    with pytest.raises(CalibrationError, match="no picture"):
        collect(_MODEL, [], {"y": [Histogram()]})


def test_tensor_of_another_graph() -> None:
    with pytest.raises(GraphError, match="no tensor 'elsewhere'"):
        collect(_MODEL, _batches(1), {"elsewhere": [Histogram()]})


def test_interrupt_passes_through() -> None:
    def interrupt(pictures: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(_MODEL, _batches(1, 1), {"y": [Histogram()]}, progress=interrupt)


def test_views_extracted_in_the_graph_are_those_of_the_whole_tensor(
    float_graph: Callable[[str], onnx.ModelProto],
) -> None:
    """The same histograms and extremes, whether the graph extracts the part or numpy does."""
    model = float_graph("mobilenet_v2")
    tensors = plan(model, target="cpu").activations
    batches = [np.random.default_rng(n).standard_normal((3, 3, 64, 64), np.float32) for n in (0, 1)]
    part = {tensor: (Histogram(), Extremes()) for tensor in tensors}
    whole = {tensor: (Histogram(), Extremes(), _Shape()) for tensor in tensors}
    collect(model, batches, part)
    collect(model, batches, whole)
    for tensor in tensors:
        np.testing.assert_array_equal(part[tensor][0].counts, whole[tensor][0].counts)
        assert part[tensor][1].high == whole[tensor][1].high
        if tensor.endswith("clip_output"):
            assert 0 == part[tensor][1].low <= whole[tensor][1].low
        else:
            assert part[tensor][1].low == whole[tensor][1].low
            assert part[tensor][1].mean_low == whole[tensor][1].mean_low


class _Shape:
    """Needs the whole tensor, as everything that does not say otherwise."""

    def update(self, values: npt.NDArray[np.float32]) -> None:
        assert values.ndim == 4
