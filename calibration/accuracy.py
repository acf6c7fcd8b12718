"""Measures INT8 graphs against float32 on images, and says what can be promised of them."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from resdeploy.calibration.graph.half_in_float import half_in_float
from resdeploy.calibration.job import Job
from resdeploy.calibration.repair.recipes import Measurements
from resdeploy.calibration.repair.run import logits
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.model import Model, recorded_maps, recorded_reference
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.metrics.logits import answers
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.deploy.verification.checks.promise import ON_IMAGES, ON_RECORDED, promise_of
from resdeploy.deploy.verification.evaluation import evaluate, replay
from resdeploy.deploy.verification.features.compare import (
    compare_on_images,
    measured,
    replay_maps,
)
from resdeploy.deploy.verification.features.gates import promised_maps
from resdeploy.deploy.verification.measure import measure

# Batches of images fitted to whose confidences join those of the images held back.
_FITTED_BATCHES = 8
# Images on which a float32 graph proves that it computes what one in half does.
_PROVING = 2


@dataclass(frozen=True)
class MeasuredGraphs:
    """Every graph's figures; the milliseconds of one image on one core, float32's among them."""

    accuracy: Mapping[str, Accuracy]
    ms_per_image: Mapping[str, float]


def measure_graphs(
    job: Job, graphs: Mapping[Variant, onnx.ModelProto], held: Reference
) -> MeasuredGraphs:
    """Every graph against float32 on --data, else on the images `held` back, in one pass.

    Without any image the recorded inputs are left, and PyTorch's answers to them.
    """
    with ExitStack() as stack:
        reference = stack.enter_context(OrtSession(job.graph, threads=1, arena=False))
        sessions: dict[str, Session] = {"fp32": reference}
        for variant, graph in graphs.items():
            sessions[variant] = stack.enter_context(_session(variant, graph, held.inputs))
        if job.data is None and job.without_images:
            return _measured_on_recorded(job, sessions)
        if job.bundle.manifest.features:
            return _measured_maps(job, sessions, graphs)
        if job.data is None:
            evaluation = replay(held, sessions, step="verifying", progress=job.progress)
        else:
            evaluation = evaluate(
                job.data,
                job.bundle.manifest.preprocess,
                sessions,
                reference="fp32",
                progress=job.progress,
            )
    return MeasuredGraphs(
        {variant: measure(evaluation, variant, seed=job.options.seed) for variant in graphs},
        _ms_per_image(evaluation.seconds, sessions, len(evaluation.answers["fp32"].index)),
    )


def _session(variant: Variant, graph: onnx.ModelProto, inputs: Float32s) -> OrtSession:
    """A graph on one core; in half as float32, where that gives the same logits to the bit."""
    session = _opened(variant, graph)
    if variant != "int8-fp16":
        return session
    with session:
        wanted = session.run_all(inputs[:_PROVING])
    faster = _opened(variant, half_in_float(graph))
    got = faster.run_all(inputs[:_PROVING])
    if all(np.array_equal(wanted[name], got[name]) for name in wanted):
        return faster
    faster.close()
    return _opened(variant, graph)


def _opened(variant: Variant, graph: onnx.ModelProto) -> OrtSession:
    return OrtSession(graph.SerializeToString(), variant=variant, threads=1, arena=False)


def confidence_on_calibration(job: Job, measurements: Measurements) -> dict[str, Any] | None:
    """How confident the network is on up to 64 images that are in memory, in percent.

    None for a backbone, which has no confidence. `verify` compares it with the images that it is
    given: a network is less confident on images of another kind than it was trained for.
    """
    if job.bundle.manifest.features or job.without_images:
        return None
    found = measurements.expected
    if measurements.fitting[:_FITTED_BATCHES] and job.held is not job.calibrate:
        graph = measurements.observed.model.SerializeToString()
        more = measurements.fitting[:_FITTED_BATCHES]
        found = np.concatenate([found, logits(graph, "fp32", more, measurements.threads)])
    percent = 100 * answers(found).confidence
    if len(percent) < 2 or not np.isfinite(percent).all():
        return None
    mean, deviation = float(percent.mean()), float(percent.std(ddof=1))
    return {"images": len(percent), "mean": round(mean, 2), "deviation": round(deviation, 2)}


def _measured_on_recorded(job: Job, sessions: Mapping[str, Session]) -> MeasuredGraphs:
    model = Model(job.bundle.path, job.bundle.manifest, job.bundle)
    maps, recorded = recorded_maps(model), recorded_reference(model)
    if recorded is None:
        raise InputError(
            f"{job.bundle.path}: has no recorded inputs to measure on: give --data or --calib DIR"
        )
    variants = [name for name in sessions if name != "fp32"]
    if maps is not None:
        compared = replay_maps(maps, sessions)
        return MeasuredGraphs({name: measured(compared, name) for name in variants}, {})
    replayed = replay(recorded, sessions, progress=job.progress)
    return MeasuredGraphs(
        {name: measure(replayed, name, seed=job.options.seed) for name in variants},
        _ms_per_image(replayed.seconds, sessions, len(recorded.inputs)),
    )


def _measured_maps(
    job: Job, sessions: Mapping[str, Session], graphs: Iterable[Variant]
) -> MeasuredGraphs:
    """The same for a backbone: each feature map against float32."""
    data = job.data if job.data is not None else Images(job.held.paths, None)
    preprocess = job.bundle.manifest.preprocess
    compared = compare_on_images(
        data, preprocess, sessions, reference="fp32", progress=job.progress
    )
    return MeasuredGraphs(
        {variant: measured(compared, variant, seed=job.options.seed) for variant in graphs},
        _ms_per_image(compared.seconds, sessions, compared.images),
    )


def _ms_per_image(
    seconds: Mapping[str, float], names: Iterable[str], images: int
) -> dict[str, float]:
    return {name: round(1e3 * seconds[name] / images, 2) for name in names}


def promised_figures(
    job: Job,
    graphs: Mapping[Variant, onnx.ModelProto],
    accuracy: Mapping[str, Accuracy],
    better: Reference | None = None,
) -> dict[str, Any]:
    """What a later run is held to: the figures above, and those on the recorded inputs.

    `better` is what will be recorded instead of the bundle's reference, None for no change.
    """
    of, promise = _images_in_words(job), _promise(job)
    promised: dict[str, Any] = {
        name: {
            ON_IMAGES: None if of is None else promise(accuracy[name], of),
            ON_RECORDED: None,
        }
        for name in graphs
    }
    for name, found in _on_recorded(job, graphs, accuracy, better).items():
        promised[name][ON_RECORDED] = promise(found, "the recorded inputs")
    return promised


def _on_recorded(
    job: Job,
    graphs: Mapping[Variant, onnx.ModelProto],
    accuracy: Mapping[str, Accuracy],
    better: Reference | None,
) -> Mapping[Variant, Accuracy]:
    """Every graph's figures on what the bundle records; empty where that is nothing."""
    same_images = better is not None and len(better.inputs) == len(job.held.paths)
    if same_images and job.data is None and not job.refits:
        return {name: accuracy[name] for name in graphs}
    model = Model(job.bundle.path, job.bundle.manifest, job.bundle)
    maps, recorded = recorded_maps(model), better or recorded_reference(model)
    if recorded is None:
        return {}
    with ExitStack() as stack:
        inputs = recorded.inputs
        sessions: dict[str, Session] = {
            name: stack.enter_context(_session(name, graph, inputs))
            for name, graph in graphs.items()
        }
        if maps is not None:
            compared = replay_maps(maps, sessions)
            return {name: measured(compared, name) for name in graphs}
        replayed = replay(recorded, sessions)
    return {name: measure(replayed, name) for name in graphs}


def _promise(job: Job) -> Callable[[Accuracy, str], dict[str, Any] | None]:
    return promised_maps if job.bundle.manifest.features else promise_of


def _images_in_words(job: Job) -> str | None:
    """The images that the figures are of; None without any, for noise promises nothing of them."""
    if job.data is not None:
        return f"{len(job.data.paths)} images given to quantize"
    if job.without_images:
        return None
    return f"{len(job.held.paths)} {job.judges}"
