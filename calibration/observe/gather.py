"""Everything quantization needs to know of a float graph, from one pass over the images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from resdeploy.calibration.graph.layers import Layer, layers
from resdeploy.calibration.graph.placement import QuantPlan, plan
from resdeploy.calibration.observe.channel_peaks import ChannelPeaks
from resdeploy.calibration.observe.collect import Accumulator, collect
from resdeploy.calibration.observe.moments import Moments, in_passes
from resdeploy.calibration.ranges.methods import choose_range, trained_range
from resdeploy.calibration.ranges.observers import Histogram
from resdeploy.calibration.ranges.ranges import Range
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.trained_ranges import TrainedRanges
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.targets import TARGETS, Grid, Target

# Second moments settle long before ranges do.
MOMENT_IMAGES = 128
# Images that go through the float graph together, with all tensors that are looked at in memory.
BATCH = 4


@dataclass(frozen=True)
class Observations:
    """What was seen of one float graph.

    Attributes:
        images: how many were shown.
        histograms: by tensor.
        moments: by node name.
        trained: ranges of quantization-aware training, which go before measured ones.
        peaks, sizes: channel peaks and numbers in one image, by tensor that a layer reads.
    """

    model: onnx.ModelProto
    images: int
    histograms: Mapping[str, Histogram]
    moments: Mapping[str, Moments]
    peaks: Mapping[str, Float32s]
    sizes: Mapping[str, int]
    trained: TrainedRanges | None = None
    _known: dict[tuple[str, Grid], dict[str, Range]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def ranges(self, method: str, target: Target) -> dict[str, Range]:
        """The range of every tensor on the target's grid; they are found once."""
        trained = {} if self.trained is None else self.trained.activations
        key = method, target.grid
        if key not in self._known:
            self._known[key] = {
                tensor: trained_range(trained[tensor], histogram)
                if tensor in trained
                else choose_range(method, histogram, target.grid)
                for tensor, histogram in self.histograms.items()
            }
        return dict(self._known[key])


def about_trained(observed: Observations) -> list[str]:
    """What the user should know of ranges that come from the checkpoint."""
    trained = observed.trained
    if trained is None:
        return []
    activations = sum(tensor in trained.activations for tensor in observed.histograms)
    weights = [layer.weight in trained.weights for layer in layers(observed.model)]
    return [
        f"the ranges of {activations} of {len(observed.histograms)} activations and the grids of "
        f"{sum(weights)} of {len(weights)} weights are those the checkpoint was trained with, the "
        "others are calibrated; --ranges calibrate measures all"
    ]


def gather(
    model: onnx.ModelProto,
    images: Callable[[], Iterable[Float32s]],
    total: int,
    *,
    threads: int,
    seed: int = 0,
    progress: Progress = silent,
) -> Observations:
    """Measure a float graph in one pass, or a few where the second moments are large.

    Args:
        model: the float graph.
        images: starts a pass over the input batches (N, 3, H, W); `total` images each.
        threads: of ONNX Runtime. seed: of the positions sampled. progress: told of every batch.

    Raises:
        CalibrationError: NaN activations, or no image.
    """
    plans = [plan(model, target=target) for target in TARGETS]
    histograms = {tensor: Histogram() for tensor in quantized_tensors(plans)}
    moments = {
        layer.name: Moments(layer, seed=seed, images=MOMENT_IMAGES)
        for layer in weighted_layers(model, plans)
    }
    nothing = Observations(model, 0, histograms, moments, {}, {})
    return _after(nothing, images, total, threads, progress)


def gather_more(
    observed: Observations,
    batches: Sequence[Float32s],
    *,
    threads: int,
    progress: Progress = silent,
) -> Observations:
    """The observations after more images, as if one pass had shown those too.

    What `observed` holds goes on learning, so that large moments are not in memory twice: it is
    not to be used any more.
    """
    return _after(observed, lambda: batches, sum(map(len, batches)), threads, progress)


def _after(
    observed: Observations,
    images: Callable[[], Iterable[Float32s]],
    total: int,
    threads: int,
    progress: Progress,
) -> Observations:
    found = layers(observed.model)
    peaks = {layer.input: ChannelPeaks() for layer in found}
    for tensor, highest in observed.peaks.items():
        peaks[tensor].add(highest, observed.sizes[tensor])
    count = 0
    weighted = [layer for layer in found if layer.name in observed.moments]
    for number, part in enumerate(in_passes(weighted)):
        watched = for_ranges(observed.histograms, peaks) if number == 0 else {}
        for layer in part:
            watched.setdefault(layer.input, []).append(observed.moments[layer.name])
        count = collect(
            observed.model,
            images(),
            watched,
            threads=threads,
            progress=lambda done: progress("measuring activations", done, total),
        )
    return replace(
        observed,
        images=observed.images + count,
        peaks={name: peak.peaks for name, peak in peaks.items()},
        sizes={name: peak.size for name, peak in peaks.items()},
    )


def quantized_tensors(plans: Sequence[QuantPlan]) -> list[str]:
    """Every activation that a plan quantizes, or takes a range from."""
    tensors = [tensor for p in plans for tensor in (*p.activations, *p.same_range.values())]
    return list(dict.fromkeys(tensors))


def weighted_layers(model: onnx.ModelProto, plans: Sequence[QuantPlan]) -> list[Layer]:
    """Every layer whose weights a plan quantizes, in graph order."""
    names = {name for p in plans for name in p.weights.values()}
    return [layer for layer in layers(model) if layer.name in names]


def for_ranges(
    histograms: Mapping[str, Histogram], peaks: Mapping[str, ChannelPeaks]
) -> dict[str, list[Accumulator]]:
    """Tensor → what learns its range and its channels' peaks."""
    watched: dict[str, list[Accumulator]] = {t: [*h.parts] for t, h in histograms.items()}
    for tensor, peak in peaks.items():
        watched.setdefault(tensor, []).append(peak)
    return watched
