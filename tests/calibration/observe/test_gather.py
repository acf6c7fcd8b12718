"""One pass learns of a float graph what quantization needs, from every value or a fair sample."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.layers import layers
from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.observe.gather import Observations, gather, gather_more
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.ort import open_graph, session_options
from resdeploy.deploy.targets import CPU, TARGETS

Graphs = Callable[[str], onnx.ModelProto]

_BATCHES = [np.random.default_rng(n).standard_normal((3, 3, 64, 64), np.float32) for n in (0, 1)]


@pytest.fixture(scope="module")
def model(float_graph: Graphs) -> onnx.ModelProto:
    return float_graph("mobilenet_v2")


@pytest.fixture(scope="module")
def observed(model: onnx.ModelProto) -> Observations:
    return gather(model, lambda: _BATCHES, 6, threads=1)


@pytest.fixture(scope="module")
def values(model: onnx.ModelProto) -> dict[str, Float32s]:
    """Every quantized tensor, whole."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tensors = plan(model, target=CPU).activations
    made = [tensor for tensor in tensors if tensor != "input"]
    for tensor in made:
        info = onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
        tapped.graph.output.append(info)
    session = open_graph(tapped.SerializeToString(), "ort-cpu", session_options(threads=1))
    runs = [session.run(made, {"input": batch}) for batch in _BATCHES]
    found = {
        name: np.concatenate(parts)
        for name, parts in zip(made, zip(*runs, strict=True), strict=True)
    }
    return found | {"input": np.concatenate(_BATCHES)}


def test_extremes_are_those_of_every_value(
    observed: Observations, values: dict[str, Float32s]
) -> None:
    sampled = 0
    for tensor, seen in values.items():
        extremes = observed.histograms[tensor].extremes
        assert extremes.high == pytest.approx(seen.max(), rel=1e-5)
        if seen.min() < 0:
            assert extremes.low == pytest.approx(seen.min(), rel=1e-5)
        else:  # behind Relu or Clip: every grid holds 0 anyway
            assert 0 <= extremes.low <= seen.min()
        sampled += observed.histograms[tensor].counts.sum() < seen.size
    assert sampled > 5  # the histograms saw less


def test_min_max_clips_nothing(observed: Observations, values: dict[str, Float32s]) -> None:
    for target in TARGETS:
        ranges = observed.ranges("minmax", target)
        for tensor, seen in values.items():
            slack = 1e-5 * max(abs(ranges[tensor].low), ranges[tensor].high)
            assert ranges[tensor].low <= seen.min() + slack
            assert ranges[tensor].high >= seen.max() - slack


def test_what_layers_read_is_measured_by_channel(
    model: onnx.ModelProto, observed: Observations, values: dict[str, Float32s]
) -> None:
    assert observed.images == 6
    for layer in layers(model):
        if layer.input not in values:
            continue
        seen = values[layer.input]
        peaks = np.abs(seen).max(axis=(0, 2, 3))
        np.testing.assert_allclose(observed.peaks[layer.input], peaks, rtol=1e-5)
        assert observed.sizes[layer.input] == seen[0].size
        assert (layer.name in observed.moments) == (layer.op_type == "Conv")


def test_more_images_leave_what_one_pass_over_all_leaves(
    model: onnx.ModelProto, observed: Observations
) -> None:
    first = gather(model, lambda: _BATCHES[:1], 3, threads=1)
    both = gather_more(first, _BATCHES[1:], threads=1)
    assert both.images == observed.images
    for tensor, histogram in observed.histograms.items():
        assert both.histograms[tensor].extremes.state() == histogram.extremes.state()
        np.testing.assert_array_equal(both.histograms[tensor].counts, histogram.counts)
    for name, moments in observed.moments.items():
        np.testing.assert_array_equal(both.moments[name].mean, moments.mean)
        np.testing.assert_array_equal(both.moments[name].covariance, moments.covariance)
    for tensor, peaks in observed.peaks.items():
        np.testing.assert_array_equal(both.peaks[tensor], peaks)
    assert both.sizes == observed.sizes
