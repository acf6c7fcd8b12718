"""Tells whether calibration images are of the kind that the network was trained on.

A layer's output has mean m = W·μ + b and variance v = diag(W·C·Wᵀ) per channel on the images, with
the moments μ and C of its input (`moments`), and mean β and deviation γ in training, by the batch
norm that was folded into it (`deploy.bundle.channel_statistics`). Per layer

    distance   √ mean over channels of ((m − β) / γ)²
    spread     median over channels of √v / γ

and over all layers the medians of both. Eight images or more of the right kind have distances of
0.11 to 0.26 and spreads of 0.90 to 1.08 on trained ResNets and MobileNetV2; black images 0.48 to
0.57 and 0.28 to 0.49, noise 0.49 to 0.65 and 0.47 to 0.60, photographs of 32 × 32 pixels on
networks for larger ones 0.35 to 0.47 and 0.64 to 0.67. Where the spread collapses, ranges do, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from resdeploy.calibration.graph.layers import Layer, bias_of, constants, layers
from resdeploy.calibration.observe.gather import Observations
from resdeploy.calibration.observe.moments import Moments
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.channel_statistics import ChannelStatistics

# Unfamiliar beyond both. A network whose stored statistics are none of its own has large distances
# on any images, but its spread does not fall below that of training.
_FAR, _NARROW = 0.3, 0.75
# Fewer images vary less than those of training, whatever they show.
_LEAST_IMAGES = 8
# Channels below this share of a layer's widest are dead, and their γ is no unit to measure by.
_DEAD = 1e-2


@dataclass(frozen=True)
class Familiarity:
    """Medians over `layers` layers, see the module's docstring."""

    layers: int
    distance: float
    spread: float

    @property
    def unfamiliar(self) -> bool:
        """Whether the images are hardly those the network was made for."""
        return self.distance > _FAR and self.spread < _NARROW

    def remark(self) -> str:
        """What the user should know, with the evidence."""
        return (
            "the calibration images do not look like those the network was trained on: its "
            f"activations vary {self.spread:.2f} times as much as its batch norms say, and their "
            f"means are off by {self.distance:.2f} standard deviations (median of {self.layers} "
            f"layers; usual: 0.9 to 1.1, and at most {_FAR:g}), so ranges would be too narrow: "
            "calibrate with images like those of training, and check the preprocessing"
        )


def familiarity(
    observed: Observations, statistics: Mapping[str, ChannelStatistics]
) -> Familiarity | None:
    """How familiar the observed images are; None without statistics, or with too few images."""
    if observed.images < _LEAST_IMAGES:
        return None
    values = constants(observed.model)
    pairs = [
        _compared(layer, values, observed.moments[layer.name], known)
        for layer in layers(observed.model)
        if (known := statistics.get(layer.weight.removesuffix(".weight"))) is not None
        and layer.name in observed.moments
    ]
    if not pairs:
        return None
    distance, spread = np.nanmedian(np.array(pairs), axis=0).tolist()
    return Familiarity(len(pairs), distance, spread)


def _compared(
    layer: Layer, values: Mapping[str, Float32s], moments: Moments, known: ChannelStatistics
) -> tuple[float, float]:
    """Distance and spread of one layer; a spread of NaN where its covariance is not kept."""
    alive = known.std > _DEAD * known.std.max()
    weight = layer.rows(values[layer.weight])
    mean, variance = moments.of_outputs(weight)
    shift = (mean + bias_of(layer, values) - known.mean)[alive] / known.std[alive]
    distance = float(np.sqrt(np.mean(shift**2)))
    if variance is None:
        return distance, float("nan")
    spread = np.sqrt(variance.clip(0))[alive] / known.std[alive]
    return distance, float(np.median(spread))
