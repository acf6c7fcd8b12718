"""`quantize`: a bundle and calibration images in, INT8 graphs for every target out, or a reason.

    fp32.onnx ──one pass──▶ ranges, moments ──▶ draft ──repair ladder──▶ int8, int8-fp16, int8-cpu

A variant that loses too much (`budget`) after all repairs is not written. Files appear in the
bundle only when everything is decided, the manifest last.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from resdeploy.calibration.job import Job, QuantizeOptions, QuantizeReport, Weights
from resdeploy.calibration.observe.images import CalibrationImages, choose_images, images_sha256
from resdeploy.calibration.ranges.ranges import RangesKey, read_ranges, stale_reason
from resdeploy.deploy.bundle.bundle import INT8_REPORT, RANGES, Bundle, read_bundle
from resdeploy.deploy.bundle.channel_statistics import read_channel_statistics
from resdeploy.deploy.bundle.trained_ranges import TrainedRanges, read_trained_ranges
from resdeploy.deploy.bundle.update import check_replaceable
from resdeploy.deploy.defaults import CALIBRATION_IMAGES, MAX_DROP, RANGE_METHOD, RANGE_SOURCE, SEED
from resdeploy.deploy.errors import BundleError, CalibrationError, InputError
from resdeploy.deploy.images.dataset import Images, read_data
from resdeploy.deploy.optional import needs
from resdeploy.deploy.progress import Progress, silent
from resdeploy.deploy.reading import StrPath
from resdeploy.deploy.specs import RANGE_METHODS, RANGE_SOURCES, RangeSource

# Images kept back from calibration to judge by: a quarter, at least and at most these many.
_HELD_SHARE, _HELD_LEAST, _HELD_MOST = 0.25, 16, 64

# flowers_mobilenet_v2 on 92 photographs: 26.9 and 26.3 dB, with 128 images 28.8 and 28.7.
_WITHOUT_IMAGES = (
    "quantized without images, by batch-norm statistics alone: a MobileNetV2 lost 2 dB by it, and "
    "other networks may lose more: verify with --data DIR, or give images with --calib DIR"
)


def quantize(
    bundle: StrPath,
    calib: StrPath | CalibrationImages | None,
    *,
    method: str = RANGE_METHOD,
    ranges: RangeSource = RANGE_SOURCE,
    images: int = CALIBRATION_IMAGES,
    data: StrPath | None = None,
    max_drop: float | None = None,
    repair: bool = True,
    force: bool = False,
    weights: Weights = "int8",
    seed: int = SEED,
    progress: Progress = silent,
) -> QuantizeReport:
    """Quantize the float graph of a bundle and put the INT8 variants into the bundle.

    Args:
        bundle: folder; calib: a folder or list of images, those chosen already, or None for none.
        method: of choosing ranges; "auto" finds the one that does best.
        ranges: as trained ("checkpoint"), all measured ("calibrate"), or as trained if so ("auto").
        data: labelled images that decide whether `max_drop` points of top-1 are kept to.
        repair: climb the repair ladder while the budget is missed.
        force: write variants that miss their budget, too.
        weights: "float" stores int8.onnx's weights as floats behind Q and DQ (TensorRT before 10).
        seed: of every random choice. progress: told of each step.

    Raises:
        CalibrationError: no images, unreadable ones, or NaN activations.
        InputError: an option, `max_drop` without labels, "checkpoint" without trained ranges.
        BundleError, GraphError: no float graph of ours in the bundle.
        MissingDependencyError: onnx or onnxruntime is missing.
    """
    started = time.monotonic()
    if method not in RANGE_METHODS:
        raise InputError(f"method {method!r} is not one of {', '.join(RANGE_METHODS)}")
    opened = read_bundle(bundle)
    chosen = _chosen(calib, images, seed)
    options = QuantizeOptions(method, ranges, repair, force, weights, seed)
    return _run(_job(opened, chosen, data, max_drop, options, progress), chosen.notes, started)


def _chosen(calib: StrPath | CalibrationImages | None, images: int, seed: int) -> CalibrationImages:
    if calib is None:
        return CalibrationImages((), (), (_WITHOUT_IMAGES,))
    if isinstance(calib, CalibrationImages):
        return calib
    return choose_images(Path(calib), images=images, seed=seed)


def _job(
    bundle: Bundle,
    chosen: CalibrationImages,
    data: StrPath | None,
    max_drop: float | None,
    options: QuantizeOptions,
    progress: Progress,
) -> Job:
    calibrate, held = _split(chosen)
    return Job(
        bundle=bundle,
        graph=bundle.graph("fp32"),
        key=_key(bundle, options.method, chosen),
        calibrate=calibrate,
        held=held,
        data=_dataset(bundle, data, max_drop),
        max_drop=MAX_DROP if max_drop is None else max_drop,
        trained=_trained(bundle, options.ranges),
        statistics=read_channel_statistics(bundle),
        options=options,
        progress=progress,
    )


def _trained(bundle: Bundle, ranges: RangeSource) -> TrainedRanges | None:
    if ranges not in RANGE_SOURCES:
        raise InputError(f"ranges {ranges!r} is not one of {', '.join(RANGE_SOURCES)}")
    found = None if ranges == "calibrate" else read_trained_ranges(bundle)
    if found is None and ranges == "checkpoint":
        raise InputError(
            f"{bundle.path}: the checkpoint had no trained ranges: quantize with "
            "--ranges calibrate, or export the checkpoint of a quantization-aware training"
        )
    return found


def _dataset(bundle: Bundle, data: StrPath | None, max_drop: float | None) -> Images | None:
    dataset = None if data is None else read_data(Path(data), bundle.manifest.labels)
    if max_drop is not None and (dataset is None or dataset.truth is None):
        raise InputError(
            "--max-drop needs labelled images to count on: give --data with class folders"
        )
    return dataset


def _run(job: Job, notes: Sequence[str], started: float) -> QuantizeReport:
    with needs("quantize"):
        from threadpoolctl import threadpool_limits

        from resdeploy.calibration.variants import make_variants
    reason = _stale(job)
    if reason is None:
        return _unchanged(job)
    check_replaceable(job.bundle.path)  # before minutes of work
    remarks = [*notes, *_about_held(job)]
    if reason:
        remarks.append(f"{RANGES} was measured again: {reason}")
    # Threads of BLAS wait for each other by spinning, against those of ONNX Runtime and of anything
    # else on the machine: with one, work is shared out by layers and halves of the images, and
    # the integers do not depend on the number of cores.
    with threadpool_limits(1, user_api="blas"):
        return make_variants(job, remarks, started)


def _split(chosen: CalibrationImages) -> tuple[CalibrationImages, CalibrationImages]:
    """Calibration images, and those held back from it: the last ones, balanced over classes."""
    count = min(_HELD_MOST, max(_HELD_LEAST, round(_HELD_SHARE * len(chosen.paths))))
    if count > len(chosen.paths) // 2:
        return chosen, chosen
    cut = len(chosen.paths) - count
    return (
        replace(chosen, paths=chosen.paths[:cut], classes=chosen.classes[:cut], notes=()),
        CalibrationImages(chosen.paths[cut:], chosen.classes[cut:], ()),
    )


def _about_held(job: Job) -> list[str]:
    if job.held is not job.calibrate or job.without_images:
        return []
    few = f"{len(job.held.paths)} images are too few to keep some back: "
    if job.data is not None:
        return [f"{few}repairs are judged on the calibration images themselves"]
    return [
        f"{few}the accuracy below is on the calibration images themselves and looks better than it "
        "is"
    ]


def _key(bundle: Bundle, method: str, chosen: CalibrationImages) -> RangesKey:
    preprocess = json.dumps(bundle.manifest.preprocess.to_json(), sort_keys=True)
    return RangesKey(
        graph=bundle.manifest.variants["fp32"].sha256,
        images=images_sha256(chosen.paths),
        preprocess=hashlib.sha256(preprocess.encode()).hexdigest(),
        method=method,
        version=version("resdeploy"),
    )


def _stale(job: Job) -> str | None:
    """None when the bundle holds this very result already; why not, "" for a first time."""
    stored = job.bundle.manifest.calibration
    try:
        file = job.bundle.file(RANGES)
        if stored is None or file is None:
            return ""
        job.bundle.file(INT8_REPORT)
        reason = stale_reason(read_ranges(file).key, job.key)
    except (BundleError, CalibrationError) as error:
        return str(error)
    if reason is not None:
        return reason
    same = stored.get("options") == job.stored_options() and not stored.get("refused")
    return None if same and not job.options.force else "other options were asked for"


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
        notes=("graph, images and options are the same as last time: nothing to do",),
    )
