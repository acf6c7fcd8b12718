"""`gather` over workers: the same observations, bit for bit, from shares of the images.

Histograms and peaks of the shares are added up, which does not depend on the order. Second moments
do: they are sums of floats over random positions. So each layer's are left to one share, which
shows it the first images in order; there is one such share for every part of `in_passes`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import onnx

from resdeploy.calibration.graph.layers import Layer, layers
from resdeploy.calibration.graph.placement import plan
from resdeploy.calibration.observe.channel_peaks import ChannelPeaks
from resdeploy.calibration.observe.collect import Accumulator, collect
from resdeploy.calibration.observe.gather import (
    BATCH,
    MOMENT_IMAGES,
    Observations,
    for_ranges,
    quantized_tensors,
    weighted_layers,
)
from resdeploy.calibration.observe.images import (
    CalibrationImages,
    Reading,
    check_unreadable,
    read_batches,
)
from resdeploy.calibration.observe.moments import Moments, in_passes
from resdeploy.calibration.ranges.observers import Histogram, Seen
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.errors import CalibrationError
from resdeploy.deploy.images.dataset import UNREADABLE_SHARE
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.targets import TARGETS

# a multiple of the batch, so that batches are those of one pass over all images
_SHARE_IMAGES = 64


@dataclass(frozen=True)
class _Share:
    """What came of one share: ranges and peaks of its images, or moments of some layers.

    unreadable: the reasons, by position in the share; single_colour: such positions.
    """

    images: int
    unreadable: Mapping[int, str]
    single_colour: Sequence[int]
    histograms: Mapping[str, Seen]
    peaks: Mapping[str, tuple[Float32s, int]]
    moments: Mapping[str, Moments]


@dataclass(frozen=True)
class _Task:
    """What every worker knows of the task; called with the number and the images of a share.

    tensors: that get a histogram. parts: of the layers, whose moments the first shares take.
    """

    graph: bytes
    preprocess: Preprocess
    tensors: Sequence[str]
    parts: Sequence[Sequence[Layer]]
    total: int
    seed: int

    def __call__(self, bundle: Path, number: int, files: Sequence[Path]) -> _Share:
        model = onnx.load_from_string(self.graph)
        reading = Reading()
        batches = read_batches(
            files, self.preprocess, batch=BATCH, threads=1, reading=reading, total=self.total
        )
        if number < len(self.parts):
            return self._moments(model, number, batches)
        return self._ranges(model, batches, reading, files)

    def _moments(
        self,
        model: onnx.ModelProto,
        number: int,
        batches: Iterable[Float32s],
    ) -> _Share:
        part = self.parts[number]
        moments = {
            layer.name: Moments(layer, seed=self.seed, images=MOMENT_IMAGES) for layer in part
        }
        # ONNX Runtime fuses what nobody looks at, and last bits change: look at as much as `gather`
        watched: dict[str, list[Accumulator]] = {} if number else self._watched(model)
        for layer in part:
            watched.setdefault(layer.input, []).append(moments[layer.name])
        first = islice(batches, -(-MOMENT_IMAGES // BATCH))
        collect(model, first, watched, threads=1)
        return _Share(0, {}, (), {}, {}, moments)

    def _watched(self, model: onnx.ModelProto) -> dict[str, list[Accumulator]]:
        peaks = {layer.input: ChannelPeaks() for layer in layers(model)}
        return for_ranges({tensor: Histogram() for tensor in self.tensors}, peaks)

    def _ranges(
        self,
        model: onnx.ModelProto,
        batches: Iterable[Float32s],
        reading: Reading,
        files: Sequence[Path],
    ) -> _Share:
        histograms = {tensor: Histogram() for tensor in self.tensors}
        peaks = {layer.input: ChannelPeaks() for layer in layers(model)}
        try:
            images = collect(model, batches, for_ranges(histograms, peaks), threads=1)
        except CalibrationError:
            if not reading.unreadable:
                raise
            images = 0  # none of this share could be read
        unreadable = {
            position: reason.removeprefix(f"{files[position]}: ")
            for position, reason in reading.unreadable.items()
        }
        if not images:
            return _Share(0, unreadable, (), {}, {}, {})
        seen = {tensor: histogram.seen() for tensor, histogram in histograms.items()}
        sizes = {name: (peak.peaks, peak.size) for name, peak in peaks.items()}
        return _Share(images, unreadable, tuple(reading.single_colour), seen, sizes, {})


def gather_spread(
    model: onnx.ModelProto,
    chosen: CalibrationImages,
    preprocess: Preprocess,
    *,
    reading: Reading,
    seed: int = 0,
    progress: Progress = silent,
) -> Observations:
    """What `gather` gives for the same images, measured by the workers that have them.

    `reading` is told of images that cannot be read or are of one colour; `seed` is that of the
    positions sampled.

    Raises:
        CalibrationError: NaN activations, no image, or more than 5 % unreadable.
    """
    assert chosen.workers is not None, "asked only where there are some"
    total = len(chosen.paths)
    plans = [plan(model, target=target) for target in TARGETS]
    tensors, parts = quantized_tensors(plans), in_passes(weighted_layers(model, plans))
    task = _Task(model.SerializeToString(), preprocess, tensors, parts, total, seed)
    # as many images as may be needed until enough of them could be read
    first = range(min(total, MOMENT_IMAGES + int(UNREADABLE_SHARE * total)))
    shares = [first] * len(parts) + _shares(total)
    histograms = {tensor: Histogram() for tensor in tensors}
    peaks = {layer.input: ChannelPeaks() for layer in layers(model)}
    moments: dict[str, Moments] = {}
    images = 0
    for share, found in zip(shares, chosen.workers(nullcontext, task, shares), strict=True):
        moments |= found.moments
        images += found.images
        _add(found, histograms, peaks)
        _note(found, share.start, chosen.paths, reading)
        progress("calibrating", images, total)
    if not images:
        raise CalibrationError("no image to calibrate with")
    channel_peaks = {name: peak.peaks for name, peak in peaks.items()}
    sizes = {name: peak.size for name, peak in peaks.items()}
    return Observations(model, images, histograms, moments, channel_peaks, sizes)


def _add(
    found: _Share, histograms: Mapping[str, Histogram], peaks: Mapping[str, ChannelPeaks]
) -> None:
    for tensor, seen in found.histograms.items():
        histograms[tensor].add(seen)
    for tensor, (highest, size) in found.peaks.items():
        peaks[tensor].add(highest, size)


def _note(found: _Share, start: int, paths: Sequence[Path], reading: Reading) -> None:
    for position, reason in found.unreadable.items():
        reading.unreadable[start + position] = f"{paths[start + position]}: {reason}"
        check_unreadable(reading, len(paths), reading.unreadable[start + position])
    for position in found.single_colour:
        reading.single_colour[start + position] = paths[start + position]


def _shares(total: int) -> list[range]:
    return [
        range(start, min(start + _SHARE_IMAGES, total)) for start in range(0, total, _SHARE_IMAGES)
    ]
