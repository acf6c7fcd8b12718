"""`quantize`: a bundle and calibration pictures in, INT8 graphs for every target out, or a reason.

    fp32.onnx ──one pass──▶ ranges, moments ──▶ draft ──repair ladder──▶ int8, int8-fp16, int8-cpu

A variant that loses too much (`budget`) after all repairs is not written. Files appear in the
bundle only when everything is decided, the manifest last.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resdeploy.calibration.images import IMAGES, Pictures, choose_pictures, pictures_sha256
from resdeploy.calibration.methods import METHODS
from resdeploy.calibration.ranges import RangesKey, read_ranges, stale_reason
from resdeploy.deploy.bundle import RANGES, Bundle, read_bundle
from resdeploy.deploy.errors import CalibrationError, InputError
from resdeploy.deploy.gate import DEFAULT_MAX_DROP
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.optional import needs
from resdeploy.deploy.output import Progress, silent

if TYPE_CHECKING:
    from resdeploy.deploy.evaluation import Pictures as Data

# Pictures kept back from calibration to judge by: a quarter, at least and at most these many.
_HELD_SHARE, _HELD_LEAST, _HELD_MOST = 0.25, 16, 64
# The command's exit code when a variant was refused.
REFUSED = 3

Weights = Literal["int8", "float"]


@dataclass(frozen=True)
class QuantizeReport:
    """What was made.

    Attributes:
        calibration: images, held_back, method, seconds and more, as stored in the manifest.
        repairs: every attempt of the ladder: variant, rung, detail, accepted, before and after.
        accuracy: variant → figures as `resdeploy verify` gives them, on --data or on the pictures
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
        return REFUSED if self.refused and not self.forced else 0

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
class Job:
    """Everything `quantize` was asked for, with the pictures chosen."""

    bundle: Bundle
    graph: Path
    key: RangesKey
    calibrate: Pictures
    held: Pictures
    data: "Data | None"
    method: str
    max_drop: float
    repair: bool
    force: bool
    weights: Weights
    seed: int
    progress: Progress

    @property
    def labelled(self) -> bool:
        """Whether the true classes of the data are known."""
        return self.data is not None and self.data.truth is not None

    def options(self) -> dict[str, Any]:
        """What decides the result besides the ranges' key, for the manifest."""
        return {
            "method": self.method,
            "max_drop": self.max_drop if self.labelled else None,
            "repair": self.repair,
            "weights": self.weights,
            "seed": self.seed,
            "data_images": len(self.data.paths) if self.data is not None else 0,
        }


def quantize(
    bundle: Path,
    calib: Path,
    *,
    method: str = "auto",
    images: int = IMAGES,
    data: Path | None = None,
    max_drop: float | None = None,
    repair: bool = True,
    force: bool = False,
    weights: Weights = "int8",
    seed: int = 0,
    progress: Progress = silent,
) -> QuantizeReport:
    """Quantize the float graph of a bundle and put the INT8 variants into the bundle.

    Args:
        calib: a folder or list of calibration pictures; up to `images` are used.
        data: labelled pictures that decide whether `max_drop` points of top-1 are kept to.
        repair: climb the repair ladder while the budget is missed.
        force: write variants that miss their budget too.
        weights: "float" stores int8.onnx's weights as floats behind Q and DQ (TensorRT before 10).

    Raises:
        CalibrationError: no pictures, unreadable ones, or NaN activations.
        InputError: an option, or `max_drop` without labelled pictures.
        BundleError, GraphError: no float graph of ours in the bundle.
        MissingDependencyError: onnx or onnxruntime is missing.
    """
    started = time.monotonic()
    if method not in METHODS:
        raise InputError(f"method {method!r} is not one of {', '.join(METHODS)}")
    opened = read_bundle(bundle)
    graph = opened.graph("fp32")
    chosen = choose_pictures(calib, images=images, seed=seed)
    calibrate, held = _split(chosen)
    with needs("quantize"):
        from threadpoolctl import threadpool_limits

        from resdeploy.calibration.variants import make_variants
        from resdeploy.deploy.evaluation import read_data
    pictures = None if data is None else read_data(data, opened.manifest.labels)
    if max_drop is not None and (pictures is None or pictures.truth is None):
        raise InputError(
            "--max-drop needs labelled pictures to count on: give --data with class folders"
        )
    job = Job(
        bundle=opened,
        graph=graph,
        key=_key(opened, method, chosen),
        calibrate=calibrate,
        held=held,
        data=pictures,
        method=method,
        max_drop=DEFAULT_MAX_DROP if max_drop is None else max_drop,
        repair=repair,
        force=force,
        weights=weights,
        seed=seed,
        progress=progress,
    )
    reason = _stale(job)
    if reason is None:
        return _unchanged(job)
    notes = [*chosen.notes, *_about_held(held, calibrate)]
    if reason:
        notes.append(f"{RANGES} was measured again: {reason}")
    # Threads of BLAS wait for each other by spinning, against those of ONNX Runtime and of anything
    # else on the machine: with one, work is shared out by layers and halves of the pictures, and
    # the integers do not depend on the number of cores.
    with threadpool_limits(1, user_api="blas"):
        return make_variants(job, notes, started)


def _split(chosen: Pictures) -> tuple[Pictures, Pictures]:
    """Calibration pictures, and those held back from it: the last ones, balanced over classes."""
    count = min(_HELD_MOST, max(_HELD_LEAST, round(_HELD_SHARE * len(chosen.paths))))
    if count > len(chosen.paths) // 2:
        return chosen, chosen
    cut = len(chosen.paths) - count
    return (
        Pictures(chosen.paths[:cut], chosen.classes[:cut], ()),
        Pictures(chosen.paths[cut:], chosen.classes[cut:], ()),
    )


def _about_held(held: Pictures, calibrate: Pictures) -> list[str]:
    if held is not calibrate:
        return []
    return [
        f"{len(held.paths)} pictures are too few to keep some back: the accuracy below is on the "
        "calibration pictures themselves and looks better than it is"
    ]


def _key(bundle: Bundle, method: str, chosen: Pictures) -> RangesKey:
    preprocess = json.dumps(bundle.manifest.preprocess.to_json(), sort_keys=True)
    return RangesKey(
        graph=bundle.manifest.variants["fp32"].sha256,
        pictures=pictures_sha256(chosen.paths),
        preprocess=hashlib.sha256(preprocess.encode()).hexdigest(),
        method=method,
        version=version("resdeploy"),
    )


def _stale(job: Job) -> str | None:
    """None when the bundle holds this very result already; why not, "" for a first time."""
    stored = job.bundle.manifest.calibration
    if stored is None or not (job.bundle.path / RANGES).is_file():
        return ""
    try:
        reason = stale_reason(read_ranges(job.bundle.path / RANGES).key, job.key)
    except CalibrationError as error:
        return str(error)
    if reason is not None:
        return reason
    same = stored.get("options") == job.options() and not stored.get("refused")
    return None if same and not job.force else "other options were asked for"


def _unchanged(job: Job) -> QuantizeReport:
    """The report of the run that made what the bundle holds, whose files are checked."""
    manifest = job.bundle.manifest
    stored = dict(manifest.calibration or {})
    for name in manifest.variants:
        job.bundle.graph(name)
    return QuantizeReport(
        bundle=job.bundle.path,
        manifest=manifest,
        calibration=stored,
        repairs=tuple(stored.get("repairs", ())),
        accuracy=stored.get("accuracy", {}),
        notes=("graph, pictures and options are the same as last time: nothing to do",),
    )
