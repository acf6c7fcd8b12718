"""Makes the INT8 variants of a bundle and decides which of them may ship."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from resdeploy.calibration.budget import Budget
from resdeploy.calibration.equalize import equalize
from resdeploy.calibration.images import Reading, read_batches
from resdeploy.calibration.layers import with_biases
from resdeploy.calibration.pipeline import QuantizeReport
from resdeploy.calibration.plan import PlanTarget
from resdeploy.calibration.recipes import VARIANT_OF, Material
from resdeploy.calibration.repair import Climb, Step, climb, with_shares
from resdeploy.calibration.sensitivity import logits
from resdeploy.calibration.shipping import ship
from resdeploy.calibration.statistics import GRIDS, Statistics, gather
from resdeploy.calibration.wiring import check_quantizable
from resdeploy.deploy.accuracy import Accuracy, measure
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.evaluation import Pictures as Data
from resdeploy.deploy.evaluation import evaluate
from resdeploy.deploy.machine import cores
from resdeploy.deploy.ort import OrtSession
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Variant
from resdeploy.export.graph import load_graph

if TYPE_CHECKING:
    from resdeploy.calibration.pipeline import Job

_BATCH = 8
# What `absorb` may keep in memory, and the pictures it is content with.
_FITTING_BYTES, _FITTING_MOST, _FITTING_LEAST = 1 << 30, 64, 16
# Tensors of the largest size that lie in memory per picture: both sides of one, and its result.
_LIVE_TENSORS = 3
# Where labels are known and too many answers are lost, the aim rises in such steps, so often.
_RAISE_DB, _RAISES = 3.0, 3
# Then one layer in so many may be left float.
_FLOAT_SHARE = 5

Floats = npt.NDArray[np.float32]


def make_variants(job: "Job", notes: list[str], started: float) -> QuantizeReport:
    """Run the whole job; see `pipeline.quantize`."""
    model = load_graph(job.graph)
    check_quantizable(model)
    reading = Reading()
    material = _material(job, with_biases(model), reading)
    budget = Budget().by_labels() if job.labelled else Budget()
    climbs = {
        target: climb(material, target, budget, method=job.method, repair=job.repair)
        for target in GRIDS
    }
    graphs, left_out = _graphs(job, climbs)
    accuracy = _accuracy(job, graphs)
    if job.repair and _climb_on(job, material, climbs, accuracy):
        graphs, left_out = _graphs(job, climbs)
        accuracy = _accuracy(job, graphs)
    notes = [*notes, *reading.notes(), *left_out]
    refused = _refused(job, material, climbs, accuracy)
    figures = {name: found.to_json() for name, found in accuracy.items()}
    steps = [_step(step) for climb in climbs.values() for step in climb.steps]
    calibration = {
        **_summary(job, climbs),
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes,
        "refused": refused,
        "repairs": steps,
        "accuracy": figures,
    }
    kept = {name: g for name, g in graphs.items() if job.force or name not in refused}
    return QuantizeReport(
        bundle=job.bundle.path,
        manifest=ship(job, material, climbs, kept, calibration),
        calibration=calibration,
        repairs=tuple(steps),
        accuracy=figures,
        refused=refused,
        notes=tuple(notes),
        forced=job.force,
    )


def _material(job: "Job", model: onnx.ModelProto, reading: Reading) -> Material:
    """Measure the float graph, and set pictures aside to judge by and to fit to."""
    threads = cores()
    preprocess = job.bundle.manifest.preprocess
    first_pass = [reading]

    def pictures() -> Iterator[Floats]:
        noted = first_pass.pop() if first_pass else Reading()
        return read_batches(
            job.calibrate.paths, preprocess, batch=_BATCH, threads=threads, reading=noted
        )

    def measured(graph: onnx.ModelProto) -> Statistics:
        total = len(job.calibrate.paths)
        return gather(graph, pictures, total, threads=threads, seed=job.seed, progress=job.progress)

    known = {False: measured(model)}

    def statistics(equalized: bool) -> Statistics:
        if equalized not in known:
            known[equalized] = measured(equalize(model, known[False].peaks))
        return known[equalized]

    held = list(read_batches(job.held.paths, preprocess, batch=_BATCH, threads=threads))
    return Material(
        measure=statistics,
        held=held,
        expected=logits(model.SerializeToString(), "fp32", held, threads),
        fitting=_first(pictures(), _fitting_pictures(known[False])),
        threads=threads,
        seed=job.seed,
        progress=job.progress,
    )


def _fitting_pictures(statistics: Statistics) -> int:
    largest = 4 * _LIVE_TENSORS * max(statistics.sizes.values())
    return min(_FITTING_MOST, max(_FITTING_LEAST, _FITTING_BYTES // largest))


def _first(batches: Iterable[Floats], pictures: int) -> list[Floats]:
    taken: list[Floats] = []
    for batch in batches:
        if sum(map(len, taken)) >= pictures:
            break
        taken.append(batch)
    return taken


def _climb_on(
    job: "Job",
    material: Material,
    climbs: dict[PlanTarget, Climb],
    accuracy: Mapping[str, Accuracy],
) -> bool:
    """Where labels tell of too large a drop, aim higher and climb on; whether anything changed."""
    changed = False
    for target, here in climbs.items():
        variant = VARIANT_OF[target]
        found = accuracy[variant]
        for _ in range(_RAISES):
            if found.counts is None or found.counts.drop <= job.max_drop:
                break
            aim = here.score.sqnr_db + _RAISE_DB
            most = len(here.draft.layers) // _FLOAT_SHARE
            budget = Budget(aim_sqnr_db=aim, aim_sqnr_free_db=aim, most_float=most)
            after = climb(material, target, budget, method=job.method, start=here)
            climbs[target] = after
            if after.recipe == here.recipe:
                break
            here, changed = after, True
            found = _accuracy(job, {variant: here.draft.graph()})[variant]
    return changed


def _refused(
    job: "Job",
    material: Material,
    climbs: dict[PlanTarget, Climb],
    accuracy: Mapping[str, Accuracy],
) -> dict[str, str]:
    """Variant → why it may not ship, and which layers did it."""
    refused: dict[str, str] = {}
    for target, here in climbs.items():
        variant = VARIANT_OF[target]
        reason = _refusal(job, here, accuracy[variant])
        if reason is not None:
            climbs[target] = with_shares(material, here)
            worst = ", ".join(climbs[target].worst)
            refused[variant] = f"{reason}; most of the error comes from {worst}"
    if "int8" in refused and "int8-fp16" in accuracy:
        refused["int8-fp16"] = refused["int8"]
    return refused


def _refusal(job: "Job", here: Climb, found: Accuracy) -> str | None:
    """With labels they decide, and chance is given its due; without, the budget does."""
    if found.counts is None or found.drop_ci95 is None:
        return Budget().refuses(here.score)
    if found.drop_ci95.low <= job.max_drop:
        return None
    return (
        f"top-1 drops by {found.counts.drop:.2f} points on {found.images} pictures "
        f"(95 % interval from {found.drop_ci95.low:.2f}), more than {job.max_drop:g}"
    )


def _accuracy(job: "Job", graphs: Mapping[Variant, onnx.ModelProto]) -> dict[str, Accuracy]:
    """Every graph against float32 on --data, else on the pictures held back, in one pass."""
    data = job.data if job.data is not None else Data(job.held.paths, None)
    with ExitStack() as stack:
        reference = stack.enter_context(OrtSession(job.graph, threads=1))
        sessions: dict[str, Session] = {"fp32": reference}
        for variant, graph in graphs.items():
            session = OrtSession(graph.SerializeToString(), variant=variant, threads=1)
            sessions[variant] = stack.enter_context(session)
        evaluation = evaluate(
            data,
            job.bundle.manifest.preprocess,
            sessions,
            reference="fp32",
            progress=job.progress,
        )
    return {variant: measure(evaluation, variant, seed=job.seed) for variant in graphs}


def _graphs(
    job: "Job", climbs: Mapping[PlanTarget, Climb]
) -> tuple[dict[Variant, onnx.ModelProto], list[str]]:
    """Every variant's graph, and what is to be said of one that cannot be made."""
    tensorrt, cpu = climbs["tensorrt"].draft, climbs["cpu"].draft
    graphs: dict[Variant, onnx.ModelProto] = {
        "int8": tensorrt.graph(float_weights=job.weights == "float")
    }
    notes = []
    try:
        graphs["int8-fp16"] = tensorrt.graph(half=True)
    except GraphError as error:
        notes.append(f"int8-fp16.onnx is left out: {error}")
    graphs["int8-cpu"] = cpu.graph()
    return graphs, notes


def _summary(job: "Job", climbs: Mapping[PlanTarget, Climb]) -> dict[str, Any]:
    return {
        "images": len(job.calibrate.paths),
        "held_back": 0 if job.held is job.calibrate else len(job.held.paths),
        "method": climbs["tensorrt"].recipe.method,
        "pictures_sha256": job.key.pictures,
        "recipes": {VARIANT_OF[t]: asdict(climb.recipe) for t, climb in climbs.items()},
        "options": job.options(),
    }


def _step(step: Step) -> dict[str, Any]:
    before, after = (
        {"images": s.images, "agreement": round(s.agreement, 2), "sqnr_db": round(s.sqnr_db, 2)}
        for s in (step.before, step.after)
    )
    return {
        "variant": step.variant,
        "rung": step.rung,
        "detail": step.detail,
        "accepted": step.accepted,
        "gained_db": round(step.after.sqnr_db - step.before.sqnr_db, 2),
        "before": before,
        "after": after,
        "seconds": round(step.seconds, 1),
    }
