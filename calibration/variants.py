"""Makes the INT8 variants of a bundle and decides which of them are published."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx

from resdeploy.calibration.accuracy import (
    MeasuredGraphs,
    measure_graphs,
    promised_figures,
)
from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.graph.topology import check_quantizable
from resdeploy.calibration.job import Job, QuantizeReport
from resdeploy.calibration.observe.familiarity import familiarity
from resdeploy.calibration.observe.gather import BATCH, Observations, about_trained, gather
from resdeploy.calibration.observe.gather_spread import gather_spread
from resdeploy.calibration.observe.images import DecodedImages, Reading, read_batches
from resdeploy.calibration.publish import Outcome, publish
from resdeploy.calibration.reference import about_reference, better_reference
from resdeploy.calibration.repair.all_images import refitted
from resdeploy.calibration.repair.budget import Budget
from resdeploy.calibration.repair.by_labels import refusal, repair_by_labels
from resdeploy.calibration.repair.ladder import (
    RepairState,
    first_draft,
    repair_variant,
    with_shares,
)
from resdeploy.calibration.repair.recipes import FIRST_METHOD, DraftCache, Measurements
from resdeploy.calibration.repair.run import logits
from resdeploy.calibration.summary import summary
from resdeploy.calibration.weights.equalize import equalize
from resdeploy.calibration.without_images import (
    observe_without_images,
    synthetic_batches,
)
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.reference import Reference
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.machine import cores
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.system.memory import return_freed_memory
from resdeploy.deploy.targets import CPU, TARGETS, TENSORRT, Target
from resdeploy.deploy.verification.accuracy import Accuracy
from resdeploy.export.graph.onnx_file import load_graph

# What the sequential fit may keep in memory, and the images it is content with.
_FITTING_BYTES, _FITTING_MOST, _FITTING_LEAST = 192 << 20, 64, 16
# Synthetic images that judge where there are no others.
_JUDGED = 32
# A value of the largest tensor, on both sides: a half and an integer.
_BYTES_PER_VALUE = 3

States = Mapping[Target, RepairState]


@dataclass(frozen=True)
class _Made:
    """What the states are made from, their graphs, the figures, and what is to be said of them."""

    measurements: Measurements
    states: States
    graphs: Mapping[Variant, onnx.ModelProto]
    found: MeasuredGraphs
    notes: Sequence[str]


def make_variants(job: Job, notes: list[str], started: float) -> QuantizeReport:
    """Run the whole job; see `pipeline.quantize`."""
    model = load_graph(job.graph)
    check_quantizable(model)
    reading = Reading()
    measurements, cache = _measurements(job, with_biases(model), reading), DraftCache()
    states = {target: _state(job, measurements, cache, target) for target in TARGETS}
    return_freed_memory()
    held = Reference(np.concatenate(measurements.held), measurements.expected)
    made = _made(job, measurements, cache, states, partial(measure_graphs, job, held=held))
    states, refused = _refused(job, made.measurements, made.states, made.found.accuracy)
    reference = better_reference(job, held)
    notes = [*notes, *_about_observed(job, made.measurements.observed), *reading.notes()]
    notes += [*made.notes, *about_reference(job, reference)]
    calibration = {
        **summary(job, measurements, states, made.found),
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes,
        "refused": refused,
    }
    kept = {n: g for n, g in made.graphs.items() if job.options.force or n not in refused}
    job.progress("measuring on the recorded inputs", 0, 0)
    promised = promised_figures(job, kept, made.found.accuracy, reference)
    outcome = Outcome(made.measurements, states, kept, calibration, promised, reference)
    return QuantizeReport(
        bundle=job.bundle.path,
        manifest=publish(job, outcome),
        calibration=calibration,
        repairs=tuple(calibration["repairs"]),
        accuracy=calibration["accuracy"],
        refused=refused,
        notes=tuple(notes),
        forced=job.options.force,
    )


def _made(
    job: Job,
    measurements: Measurements,
    cache: DraftCache,
    states: States,
    measure: Callable[[Mapping[Variant, onnx.ModelProto]], MeasuredGraphs],
) -> _Made:
    """The graphs after the refit to all images and the repairs that labels ask for."""
    found = None
    if job.refits:
        if job.data is None:  # the images held back are judges as long as nothing is fitted to them
            found = measure(_graphs(job, states)[0])
        refit = refitted(measurements, cache, states)
        measurements, cache, states = refit.measurements, refit.cache, refit.states
    graphs, notes = _graphs(job, states)
    if found is not None:
        return _Made(measurements, states, graphs, found, [*notes, _about_refit(job)])
    found = measure(graphs)
    repaired = _repaired_by_labels(job, measurements, cache, states, found.accuracy, measure)
    if any(repaired[target].recipe != states[target].recipe for target in TARGETS):
        graphs, notes = _graphs(job, repaired)
        found = measure(graphs)
    return _Made(measurements, repaired, graphs, found, notes)


def _about_refit(job: Job) -> str:
    return (
        f"the figures are those of before the last step, on {len(job.held.paths)} images held "
        f"back; then the same recipes were fitted to all {job.images}: for figures of the files, "
        "give other images with --data DIR"
    )


def _about_observed(job: Job, observed: Observations) -> list[str]:
    found = None if job.without_images else familiarity(observed, job.statistics)
    unfamiliar = [found.remark()] if found is not None and found.unfamiliar else []
    return [*about_trained(observed), *unfamiliar]


def _measurements(job: Job, model: onnx.ModelProto, reading: Reading) -> Measurements:
    """Measure the float graph, and set images aside to judge by and to fit to."""
    if job.without_images:
        return _measurements_without_images(job, model)
    threads = cores()
    preprocess = job.bundle.manifest.preprocess
    images = DecodedImages(preprocess)
    batches = partial(read_batches, job.calibrate.paths, images, batch=BATCH, threads=threads)

    def observed(graph: onnx.ModelProto) -> Observations:
        if job.calibrate.workers is not None:
            return gather_spread(
                graph, job.calibrate, preprocess, reading=reading, seed=job.options.seed,
                progress=job.progress,
            )  # fmt: skip
        return gather(
            graph,
            partial(batches, reading=reading),
            len(job.calibrate.paths),
            threads=threads,
            seed=job.options.seed,
            progress=job.progress,
        )

    plain = replace(observed(model), trained=job.trained)
    job.progress("reading images to judge by", 0, 0)
    held = list(read_batches(job.held.paths, images, batch=BATCH, threads=threads))
    return Measurements(
        observed=plain,
        observe_equalized=lambda: observed(equalize(model, plain.peaks)),
        held=held,
        expected=logits(model.SerializeToString(), "fp32", held, threads),
        fitting=list(_first(batches(), _fitting_images(plain))),
        threads=threads,
        seed=job.options.seed,
        progress=job.progress,
        maps=tuple(feature.tensor for feature in job.bundle.manifest.features),
    )


def _measurements_without_images(job: Job, model: onnx.ModelProto) -> Measurements:
    """By batch-norm statistics alone; free repairs are judged on synthetic images."""
    threads, preprocess, seed = cores(), job.bundle.manifest.preprocess, job.options.seed
    observed = observe_without_images(
        model,
        preprocess,
        job.statistics,
        threads=threads,
        seed=seed,
        progress=job.progress,
    )
    held = synthetic_batches(preprocess, seed=seed + 1)[: _JUDGED // BATCH]
    return Measurements(
        observed=replace(observed, trained=job.trained),
        observe_equalized=lambda: observed,  # never asked for: equalizing is for images to judge
        held=held,
        expected=logits(model.SerializeToString(), "fp32", held, threads),
        fitting=(),
        threads=threads,
        seed=seed,
        progress=job.progress,
        maps=tuple(feature.tensor for feature in job.bundle.manifest.features),
    )


def _fitting_images(observed: Observations) -> int:
    largest = _BYTES_PER_VALUE * max(observed.sizes.values())
    return min(_FITTING_MOST, max(_FITTING_LEAST, _FITTING_BYTES // largest))


def _first(batches: Iterable[Float32s], images: int) -> Iterator[Float32s]:
    """Whole batches until there are so many images."""
    count = 0
    for batch in batches:
        yield batch
        count += len(batch)
        if count >= images:
            break


def _state(job: Job, measurements: Measurements, cache: DraftCache, target: Target) -> RepairState:
    """The variant of a target after the repairs that need no labels."""
    return_freed_memory()
    budget = Budget().by_labels() if job.labelled else Budget()
    budget = budget if job.trained is None else budget.as_trained()
    budget = budget.without_images() if job.without_images else budget
    asked = job.options.method
    others = asked == "auto" and not job.without_images
    state = first_draft(measurements, cache, target, FIRST_METHOD if asked == "auto" else asked)
    if job.options.repair:
        state = repair_variant(measurements, cache, state, budget, other_ranges=others)
    return state if budget.refuses(state.score) is None else with_shares(measurements, state)


def _repaired_by_labels(
    job: Job,
    measurements: Measurements,
    cache: DraftCache,
    states: States,
    accuracy: Mapping[str, Accuracy],
    measure: Callable[[Mapping[Variant, onnx.ModelProto]], MeasuredGraphs],
) -> dict[Target, RepairState]:
    """The states after the repairs that labels ask for; without labels, or repairs, as they are."""
    if not (job.options.repair and job.labelled) or job.without_images:
        return dict(states)

    def measured(state: RepairState) -> Accuracy:
        variant = state.draft.target.variant
        return measure({variant: state.draft.graph()}).accuracy[variant]

    return {
        target: repair_by_labels(
            measurements,
            cache,
            state,
            accuracy[target.variant],
            max_drop=job.max_drop,
            measure=measured,
            other_ranges=job.options.method == "auto",
        )
        for target, state in states.items()
    }


def _refused(
    job: Job, measurements: Measurements, states: States, accuracy: Mapping[str, Accuracy]
) -> tuple[dict[Target, RepairState], dict[str, str]]:
    """The states, and variant → why it is not published and which layers did it."""
    known, refused = dict(states), dict[str, str]()
    for target, state in states.items():
        reason = refusal(state.score, accuracy[target.variant], job.max_drop, Budget())
        if reason is not None:
            known[target] = with_shares(measurements, state)
            worst = ", ".join(known[target].worst)
            sentence = f"{reason}; most of the error comes from {worst}"
            refused |= {name: sentence for name in target.variants if name in accuracy}
    return known, refused


def _graphs(job: Job, states: States) -> tuple[dict[Variant, onnx.ModelProto], list[str]]:
    """Every variant's graph, and what is to be said of one that cannot be made."""
    tensorrt, cpu = states[TENSORRT].draft, states[CPU].draft
    graphs: dict[Variant, onnx.ModelProto] = {
        "int8": tensorrt.graph(float_weights=job.options.weights == "float")
    }
    notes = []
    try:
        graphs["int8-fp16"] = tensorrt.graph(half=True)
    except GraphError as error:
        notes.append(f"int8-fp16.onnx is left out: {error}")
    graphs["int8-cpu"] = cpu.graph()
    return graphs, notes
