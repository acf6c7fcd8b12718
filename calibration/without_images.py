"""Observes a float graph without any image, by what its batch norms say of the training images.

Synthetic images of 1/f noise, with the spectrum of photographs (Field 1987), go through a copy of
the graph in which every layer's output is brought to the mean β and deviation γ per channel that
its batch norm stored. With m and v the layer's own mean and variance on what it reads there,

    W' = W · γ/√v        b' = (b − m) · γ/√v + β

layer after layer, each reading what the layers before it give in their new form. The tensors of
the copy have the scale, the shift and the sparsity of the original's on training images, though not
their content: enough for ranges, for the moments that GPTQ rounds by, and for bias correction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from resdeploy.calibration.graph.layers import Layer, bias_of, constants, layers, with_constants
from resdeploy.calibration.observe.gather import Observations, gather
from resdeploy.calibration.observe.moments import Moments
from resdeploy.calibration.weights.partial_run import PartialRun
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.channel_statistics import ChannelStatistics
from resdeploy.deploy.errors import CalibrationError
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.progress import Progress, silent

SYNTHETIC_IMAGES = 64
_BATCH = 4
# Contrast and brightness of photographs vary about so much, in units of the pixel range.
_CONTRAST, _BRIGHTNESS, _BRIGHTNESS_SPREAD = 0.25, 0.45, 0.12
# Share of the noise that the three colours have in common.
_GREY = 0.9
# No channel is stretched by more: one that is constant on these images has nothing to stretch.
_LARGEST_STRETCH = 10.0
# Share of the layers whose statistics must be known.
_KNOWN = 0.5


def observe_without_images(
    model: onnx.ModelProto,
    preprocess: Preprocess,
    statistics: Mapping[str, ChannelStatistics],
    *,
    threads: int,
    seed: int = 0,
    progress: Progress = silent,
) -> Observations:
    """What `gather` would see of the float graph on training images, as far as can be told.

    Raises:
        CalibrationError: most layers had no batch norm that was folded into them.
    """
    batches = synthetic_batches(preprocess, seed=seed)
    matched = matched_graph(model, statistics, batches, threads=threads, progress=progress)
    observed = gather(
        matched, lambda: batches, SYNTHETIC_IMAGES, threads=threads, seed=seed, progress=progress
    )
    return replace(observed, model=model)


def synthetic_batches(preprocess: Preprocess, *, seed: int = 0) -> list[Float32s]:
    """Inputs (N, 3, H, W) of 1/f noise, preprocessed as photographs are."""
    random = np.random.default_rng(seed)
    mean, std = (
        np.asarray(values, np.float32)[:, None, None]
        for values in (preprocess.mean, preprocess.std)
    )
    images = [
        (_noise_image(*preprocess.input_size_px, random) - mean) / std
        for _ in range(SYNTHETIC_IMAGES)
    ]
    return [np.stack(images[k : k + _BATCH]) for k in range(0, SYNTHETIC_IMAGES, _BATCH)]


def _noise_image(height: int, width: int, random: np.random.Generator) -> Float32s:
    """Pixels (3, H, W) in 0…1, amplitudes falling with the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf  # brightness is drawn apart
    white = np.fft.rfft2(random.standard_normal((4, height, width)))
    grey, *colours = np.fft.irfft2(white / frequency, (height, width))
    mixed = np.sqrt(_GREY) * grey + np.sqrt(1 - _GREY) * np.stack(colours)
    brightness = _BRIGHTNESS + _BRIGHTNESS_SPREAD * random.standard_normal()
    pixels = brightness + _CONTRAST * mixed / mixed.std()
    return np.asarray(pixels.clip(0, 1), np.float32)


def matched_graph(
    model: onnx.ModelProto,
    statistics: Mapping[str, ChannelStatistics],
    batches: Sequence[Float32s],
    *,
    threads: int,
    progress: Progress = silent,
) -> onnx.ModelProto:
    """The copy whose layers' outputs have the mean and deviation of training.

    Raises:
        CalibrationError: most layers have no statistics.
    """
    found = layers(model)
    known = [layer for layer in found if _name(layer) in statistics]
    if len(known) < _KNOWN * len(found):
        raise CalibrationError(
            f"{len(known)} of {len(found)} layers have statistics of a batch norm, too few to "
            "quantize without images: give images with --calib DIR"
        )
    run, values = PartialRun(model, batches, threads), constants(model)
    changed: dict[str, Float32s] = {}
    for number, layer in enumerate(known):
        progress("matching layers to their batch norms", number, len(known))
        moments = Moments(layer)
        for batch in run.at(layer.input, changed):
            moments.update(batch.floats())
        changed |= _matched(layer, values, moments, statistics[_name(layer)])
    return with_constants(model, changed)


def _name(layer: Layer) -> str:
    return layer.weight.removesuffix(".weight")


def _matched(
    layer: Layer, values: Mapping[str, Float32s], moments: Moments, known: ChannelStatistics
) -> dict[str, Float32s]:
    """The layer's weight and bias that give it the statistics `known`."""
    weight = layer.rows(values[layer.weight])
    bias = bias_of(layer, values)
    mean, variance = moments.of_outputs(weight)
    mean = mean + bias
    if variance is None:
        stretch = np.ones_like(mean)
    else:
        least = known.std / _LARGEST_STRETCH
        stretch = known.std / np.sqrt(variance.clip(0)).clip(np.where(least > 0, least, 1))
    column = stretch.reshape(-1, *[1] * (values[layer.weight].ndim - 1))
    return {
        layer.weight: (values[layer.weight] * column).astype(np.float32),
        layer.bias: ((bias - mean) * stretch + known.mean).astype(np.float32),
    }
