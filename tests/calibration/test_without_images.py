"""Batch-norm statistics stand for images: layers get the scale and shift they had in training."""

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.observe.collect import collect
from resdeploy.calibration.without_images import (
    SYNTHETIC_IMAGES,
    matched_graph,
    observe_without_images,
    synthetic_batches,
)
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.channel_statistics import ChannelStatistics
from resdeploy.deploy.errors import CalibrationError
from resdeploy.deploy.images.preprocess import Preprocess
from tests.builders import TWO_LAYERS, graph_of

_TENSORS = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (8, 16, 3, 3), "b2": (8,)}
_PREPROCESS = Preprocess("small", (16, 16), None, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    weights = {name: random.normal(0, 0.3, shape) for name, shape in _TENSORS.items()}
    return with_biases(graph_of(TWO_LAYERS, weights))


def _statistics() -> dict[str, ChannelStatistics]:
    random = np.random.default_rng(4)
    return {
        name: ChannelStatistics(random.normal(0, 1, rows), random.uniform(0.5, 2, rows))
        for name, rows in (("w1", 16), ("w2", 8))
    }


class _Outputs:
    needs = "whole"

    def __init__(self) -> None:
        self.rows: list[Float32s] = []

    def update(self, values: Float32s) -> None:
        self.rows.append(np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).copy())


def test_every_layer_gets_the_statistics_of_its_batch_norm(model: onnx.ModelProto) -> None:
    statistics, batches = _statistics(), synthetic_batches(_PREPROCESS)
    matched = matched_graph(model, statistics, batches, threads=1)
    outputs = {"c1": _Outputs(), "c2": _Outputs()}
    collect(matched, batches, {name: [seen] for name, seen in outputs.items()})  # type: ignore[list-item]
    for layer, seen in zip(("w1", "w2"), outputs.values(), strict=True):
        values = np.concatenate(seen.rows, axis=1)
        known = statistics[layer]
        np.testing.assert_allclose(values.mean(axis=1), known.mean, atol=0.15 * known.std.max())
        np.testing.assert_allclose(values.std(axis=1), known.std, rtol=0.15)


def test_what_was_observed_belongs_to_the_graph_that_was_given(model: onnx.ModelProto) -> None:
    observed = observe_without_images(model, _PREPROCESS, _statistics(), threads=1)
    assert observed.model is model and observed.images == SYNTHETIC_IMAGES
    assert {"input", "r1"} <= observed.histograms.keys()


def test_too_few_statistics_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="0 of 2 layers have statistics"):
        observe_without_images(model, _PREPROCESS, {}, threads=1)


def test_synthetic_images_are_noise_with_the_spectrum_of_photographs() -> None:
    batches = synthetic_batches(_PREPROCESS)
    images = np.concatenate(batches)
    assert images.shape == (SYNTHETIC_IMAGES, 3, 16, 16)
    np.testing.assert_array_equal(images, np.concatenate(synthetic_batches(_PREPROCESS)))
    pixels = images * np.reshape(_PREPROCESS.std, (3, 1, 1)) + np.reshape(
        _PREPROCESS.mean, (3, 1, 1)
    )
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    spectrum = (np.abs(np.fft.fft2(pixels)) ** 2).mean(axis=(0, 1))
    assert spectrum[0, 1] > 10 * spectrum[0, 8]
