"""What `quantize` was asked for and what it made, for every step that takes part in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from resdeploy.calibration.observe.images import CalibrationImages
from resdeploy.calibration.ranges.ranges import RangesKey
from resdeploy.deploy.bundle.bundle import Bundle
from resdeploy.deploy.bundle.channel_statistics import ChannelStatistics
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.trained_ranges import TrainedRanges
from resdeploy.deploy.errors import EXIT_GATE_FAILED
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.progress import Progress
from resdeploy.deploy.specs import RangeSource

Weights = Literal["int8", "float"]

# Fewer images than these are refitted to with those held back; of more, these are not missed
# (flowers_mobilenet_v2, int8 and int8-cpu: 32 images +0.2 and +0.6 dB, 64 -0.3 and +0.1, 100 0.0).
_REFIT_BELOW = 64


@dataclass(frozen=True)
class QuantizeReport:
    """What was made.

    Attributes:
        calibration: images, held_back, method, seconds and more, as stored in the manifest.
        repairs: every attempt of the ladder: variant, rung, detail, accepted, before and after.
        accuracy: variant → figures as `resdeploy verify` gives them, on --data or on the images
            held back from calibration.
        refused: variant → why it was not written (or was, with force).
        notes: what the user should know, one line each.
    """

    bundle: Path
    manifest: Manifest
    calibration: Mapping[str, Any]
    repairs: tuple[Mapping[str, Any], ...] = ()
    accuracy: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    forced: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 3 where a variant was refused."""
        return EXIT_GATE_FAILED if self.refused and not self.forced else 0

    def to_json(self) -> dict[str, Any]:
        """What `resdeploy quantize --json` prints."""
        return {
            "bundle": str(self.bundle),
            "variants": self.manifest.to_json()["variants"],
            "calibration": dict(self.calibration),
            "repairs": [dict(step) for step in self.repairs],
            "accuracy": {name: dict(figures) for name, figures in self.accuracy.items()},
            "refused": dict(self.refused),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class QuantizeOptions:
    """What `quantize` was asked for besides the bundle and the images; see there."""

    method: str
    ranges: RangeSource
    repair: bool
    force: bool
    weights: Weights
    seed: int


@dataclass(frozen=True)
class Job:
    """One run of `quantize` with its images chosen.

    Attributes:
        graph: the float graph's file.
        key: what the ranges depend on.
        calibrate: images to measure; `held` those kept back to judge by.
        data: images to count accuracy on, None where none were given.
        max_drop: points of top-1 that a variant may lose on labelled data.
        trained: ranges of quantization-aware training to take, None to measure all.
        statistics: what the channels were like in training, by layer; empty where unknown.
    """

    bundle: Bundle
    graph: Path
    key: RangesKey
    calibrate: CalibrationImages
    held: CalibrationImages
    data: Images | None
    max_drop: float
    trained: TrainedRanges | None
    options: QuantizeOptions
    progress: Progress
    statistics: Mapping[str, ChannelStatistics] = field(default_factory=dict)

    @property
    def without_images(self) -> bool:
        """Whether there are no calibration images: batch-norm statistics stand for them."""
        return not self.calibrate.paths

    @property
    def judges(self) -> str:
        """What the images are that repairs are judged by, in words after their number."""
        if self.held is self.calibrate:
            return "calibration images"
        held = "images held back from calibration"
        return f"{held} until its recipe was chosen" if self.refits else held

    @property
    def refits(self) -> bool:
        """Whether the images held back are calibrated with in the end: of few they are missed."""
        held = self.held is not self.calibrate and not self.without_images
        return held and self.images < _REFIT_BELOW

    @property
    def images(self) -> int:
        """Number of calibration images, with those held back."""
        held = () if self.held is self.calibrate else self.held.paths
        return len(self.calibrate.paths) + len(held)

    @property
    def measured(self) -> int:
        """Number of images that what is written was measured on."""
        return self.images if self.refits else len(self.calibrate.paths)

    @property
    def labelled(self) -> bool:
        """Whether the true classes of the data are known."""
        return self.data is not None and self.data.truth is not None

    def stored_options(self) -> dict[str, Any]:
        """What decides the result besides the ranges' key, for the manifest."""
        return {
            "method": self.options.method,
            "ranges": "calibrate" if self.trained is None else "checkpoint",
            "max_drop": self.max_drop if self.labelled else None,
            "repair": self.options.repair,
            "weights": self.options.weights,
            "seed": self.options.seed,
            "data_images": len(self.data.paths) if self.data is not None else 0,
        }
