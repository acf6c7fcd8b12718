"""Makes the INT8 variants of a bundle, decides which may ship, and writes those."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from resdeploy.calibration.budget import Budget
from resdeploy.calibration.equalize import equalize
from resdeploy.calibration.images import Reading, read_batches
from resdeploy.calibration.layer_report import measured_layers
from resdeploy.calibration.layers import with_biases
from resdeploy.calibration.pipeline import QuantizeReport
from resdeploy.calibration.plan import PlanTarget
from resdeploy.calibration.ranges import StoredRanges, write_ranges
from resdeploy.calibration.repair import VARIANT_OF, Climb, Material, Step, climb
from resdeploy.calibration.sensitivity import logits
from resdeploy.calibration.statistics import GRIDS, Statistics, gather
from resdeploy.calibration.wiring import check_quantizable
from resdeploy.deploy.accuracy import Accuracy, measure
from resdeploy.deploy.bundle import RANGES, REPORTS, describe_file, replaced_file, write_manifest
from resdeploy.deploy.errors import GraphError
from resdeploy.deploy.evaluation import Pictures as Data
from resdeploy.deploy.evaluation import evaluate
from resdeploy.deploy.machine import cores
from resdeploy.deploy.manifest import Manifest, graph_metadata
from resdeploy.deploy.ort import OrtSession
from resdeploy.deploy.session import Session
from resdeploy.deploy.specs import Variant
from resdeploy.export.embed import append_metadata
from resdeploy.export.graph import load_graph, opset, save_graph

if TYPE_CHECKING:
    from resdeploy.calibration.pipeline import Job

REPORT = "int8.json"
_BATCH = 8
# What `absorb` may keep in memory, and the pictures it is content with.
_FITTING_BYTES, _FITTING_MOST, _FITTING_LEAST = 1 << 30, 64, 16
# Tensors of the largest size that lie in memory per picture: both sides of one, and its result.
_LIVE_TENSORS = 3
# Where labels are known and too many answers are lost, the aim rises in such steps, so often.
_RAISE_DB, _RAISES = 3.0, 3

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Outcome:
    """One target's end of the ladder, its accuracy, and why it may not ship (None: it may)."""

    climb: Climb
    accuracy: Accuracy
    refusal: str | None


def make_variants(job: "Job", notes: list[str], started: float) -> QuantizeReport:
    """Run the whole job; see `pipeline.quantize`."""
    model = load_graph(job.graph)
    check_quantizable(model)
    reading = Reading()
    material = _material(job, with_biases(model), reading)
    budget = Budget()
    outcomes = {target: _reach(job, material, target, budget) for target in GRIDS}
    graphs, more = _graphs(job, outcomes)
    notes = [*notes, *reading.notes(), *more]
    refused: dict[str, str] = {
        VARIANT_OF[target]: outcome.refusal
        for target, outcome in outcomes.items()
        if outcome.refusal is not None
    }
    if "int8" in refused:
        refused["int8-fp16"] = refused["int8"]
    accuracy: dict[str, Any] = {VARIANT_OF[t]: o.accuracy.to_json() for t, o in outcomes.items()}
    if "int8-fp16" in graphs:
        accuracy["int8-fp16"] = _accuracy(job, graphs["int8-fp16"], "int8-fp16").to_json()
    steps = [_step(step) for outcome in outcomes.values() for step in outcome.climb.steps]
    calibration = {
        **_summary(job, outcomes),
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes,
        "refused": refused,
        "repairs": steps,
        "accuracy": accuracy,
    }
    kept = {name: g for name, g in graphs.items() if job.force or name not in refused}
    manifest = _write(job, material, outcomes, kept, calibration)
    return QuantizeReport(
        bundle=job.bundle.path,
        manifest=manifest,
        calibration=calibration,
        repairs=tuple(steps),
        accuracy=accuracy,
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


def _reach(job: "Job", material: Material, target: PlanTarget, budget: Budget) -> _Outcome:
    """Climb; where labels are known and the drop is too large, aim higher and climb on."""
    here = climb(material, target, budget, method=job.method, repair=job.repair)
    variant = VARIANT_OF[target]
    for _ in range(_RAISES):
        found = _accuracy(job, here.draft.graph(), variant)
        if not job.repair or found.counts is None or found.counts.drop <= job.max_drop:
            break
        aim = max(budget.aim_sqnr_db, here.score.sqnr_db) + _RAISE_DB
        budget = replace(budget, aim_sqnr_db=aim, aim_sqnr_free_db=aim)
        after = climb(material, target, budget, method=job.method, repair=True, start=here)
        if after.recipe == here.recipe:
            here = after
            break
        here = after
    else:
        found = _accuracy(job, here.draft.graph(), variant)
    return _Outcome(here, found, _refusal(job, here, found, budget))


def _refusal(job: "Job", here: Climb, found: Accuracy, budget: Budget) -> str | None:
    """Why a variant may not ship. With labels they decide, and chance is given its due."""
    layers = ", ".join(here.worst) or "no single layer"
    if found.counts is not None and found.drop_ci95 is not None:
        if found.drop_ci95.low <= job.max_drop:
            return None
        return (
            f"top-1 drops by {found.counts.drop:.2f} points on {found.images} pictures "
            f"(95 % interval from {found.drop_ci95.low:.2f}), more than {job.max_drop:g}; "
            f"most of the error comes from {layers}"
        )
    reason = budget.refuses(here.score)
    return None if reason is None else f"{reason}; most of the error comes from {layers}"


def _accuracy(job: "Job", graph: onnx.ModelProto, variant: Variant) -> Accuracy:
    """The variant against float32 on --data, else on the pictures held back."""
    data = job.data if job.data is not None else Data(job.held.paths, None)
    with (
        OrtSession(job.graph, threads=1) as reference,
        OrtSession(graph.SerializeToString(), variant=variant, threads=1) as session,
    ):
        sessions: dict[str, Session] = {"fp32": reference, variant: session}
        evaluation = evaluate(
            data,
            job.bundle.manifest.preprocess,
            sessions,
            reference="fp32",
            progress=job.progress,
        )
    return measure(evaluation, variant, seed=job.seed)


def _graphs(
    job: "Job", outcomes: Mapping[PlanTarget, _Outcome]
) -> tuple[dict[Variant, onnx.ModelProto], list[str]]:
    """Every variant's graph, and what is to be said of one that cannot be made."""
    tensorrt, cpu = (outcomes[target].climb.draft for target in ("tensorrt", "cpu"))
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


def _summary(job: "Job", outcomes: Mapping[PlanTarget, _Outcome]) -> dict[str, Any]:
    return {
        "images": len(job.calibrate.paths),
        "held_back": 0 if job.held is job.calibrate else len(job.held.paths),
        "method": outcomes["tensorrt"].climb.recipe.method,
        "pictures_sha256": job.key.pictures,
        "recipes": {VARIANT_OF[t]: asdict(o.climb.recipe) for t, o in outcomes.items()},
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


def _write(
    job: "Job",
    material: Material,
    outcomes: Mapping[PlanTarget, _Outcome],
    graphs: Mapping[Variant, onnx.ModelProto],
    calibration: Mapping[str, Any],
) -> Manifest:
    """Put the files into the bundle, the manifest last; variants of an earlier run go."""
    folder, manifest = job.bundle.path, job.bundle.manifest
    floats = {name: file for name, file in manifest.variants.items() if name[:4] != "int8"}
    manifest = replace(manifest, variants=floats, calibration=calibration)
    parent = manifest.variants["fp32"].sha256
    for name, graph in graphs.items():
        path = folder / f"{name}.onnx"
        with replaced_file(path) as temporary:
            version = opset(graph)
            del graph.metadata_props[:]
            save_graph(graph, temporary)
            entries = graph_metadata(manifest, name, opset=version, parent_sha256=parent)
            append_metadata(temporary, entries)
        manifest = manifest.with_variant(name, describe_file(path, opset=version, made_from="fp32"))
    ranges = {
        GRIDS[target]: material.measure(False).ranges(outcome.climb.recipe.method, target)
        for target, outcome in outcomes.items()
    }
    with replaced_file(folder / RANGES) as temporary:
        write_ranges(temporary, StoredRanges(job.key, len(job.calibrate.paths), ranges))
    _write_report(job, material, outcomes, graphs, calibration)
    write_manifest(folder, manifest)
    for name in set(job.bundle.manifest.variants) - set(manifest.variants):
        (folder / job.bundle.manifest.variants[name].file).unlink(missing_ok=True)
    return manifest


def _write_report(
    job: "Job",
    material: Material,
    outcomes: Mapping[PlanTarget, _Outcome],
    graphs: Mapping[Variant, onnx.ModelProto],
    calibration: Mapping[str, Any],
) -> None:
    """Keep, for `resdeploy inspect`, what the run did and how each layer came out."""
    path = job.bundle.path / REPORTS / REPORT
    path.parent.mkdir(exist_ok=True)
    layers = measured_layers(job.bundle.path, graphs, np.concatenate(material.held))
    shares = {VARIANT_OF[t]: dict(o.climb.shares) for t, o in outcomes.items()}
    content = {"calibration": dict(calibration), "layers": layers, "shares": shares}
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
