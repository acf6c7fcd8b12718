"""Everything quantization needs to know of a float graph, from one pass over the pictures."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from resdeploy.calibration.collect import Accumulator, collect
from resdeploy.calibration.equalize import ChannelPeaks
from resdeploy.calibration.layers import layers
from resdeploy.calibration.moments import Moments, in_passes
from resdeploy.calibration.observers import Histogram
from resdeploy.calibration.plan import PlanTarget, QuantPlan, plan
from resdeploy.calibration.range_choice import choose_range
from resdeploy.calibration.ranges import Grid, Range
from resdeploy.deploy.output import Progress, silent

Floats = npt.NDArray[np.float32]

# Second moments settle long before ranges do.
_MOMENT_PICTURES = 128
GRIDS: dict[PlanTarget, Grid] = {"tensorrt": "int8", "cpu": "uint8"}


@dataclass(frozen=True)
class Statistics:
    """Of one float graph: histograms by tensor, moments by node name; channel peaks and numbers in
    one picture by tensor, for those that layers read."""

    model: onnx.ModelProto
    images: int
    histograms: Mapping[str, Histogram]
    moments: Mapping[str, Moments]
    peaks: Mapping[str, Floats]
    sizes: Mapping[str, int]

    def ranges(self, method: str, target: PlanTarget) -> dict[str, Range]:
        """The range of every tensor on the target's grid."""
        return {
            tensor: choose_range(method, histogram, GRIDS[target])
            for tensor, histogram in self.histograms.items()
        }


def gather(
    model: onnx.ModelProto,
    pictures: Callable[[], Iterable[Floats]],
    total: int,
    *,
    threads: int,
    seed: int = 0,
    progress: Progress = silent,
) -> Statistics:
    """Measure a float graph in one pass, or a few where the second moments are large.

    Args:
        pictures: starts a pass over the input batches (N, 3, H, W); `total` pictures each.

    Raises:
        CalibrationError: NaN activations, or no picture.
    """
    plans: list[QuantPlan] = [plan(model, target=target) for target in GRIDS]
    tensors = [tensor for p in plans for tensor in (*p.activations, *p.same_range.values())]
    histograms = {tensor: Histogram() for tensor in dict.fromkeys(tensors)}
    weighted = {name for p in plans for name in p.weights.values()}
    found = layers(model)
    peaks = {layer.input: ChannelPeaks() for layer in found}
    moments: dict[str, Moments] = {}
    images = 0
    for number, part in enumerate(in_passes([x for x in found if x.name in weighted])):
        taps: dict[str, list[Accumulator]] = {}
        if number == 0:
            for name, histogram in histograms.items():
                taps.setdefault(name, []).append(histogram)
            for name, peak in peaks.items():
                taps.setdefault(name, []).append(peak)
        for layer in part:
            moments[layer.name] = Moments(layer, seed=seed, pictures=_MOMENT_PICTURES)
            taps.setdefault(layer.input, []).append(moments[layer.name])
        images = collect(
            model,
            pictures(),
            taps,
            threads=threads,
            progress=lambda done: progress("calibrating", done, total),
        )
    return Statistics(
        model,
        images,
        histograms,
        moments,
        peaks={name: peak.peaks for name, peak in peaks.items()},
        sizes={name: peak.size for name, peak in peaks.items()},
    )
