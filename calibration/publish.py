"""Publishes INT8 variants in the bundle, with what was measured: all or nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from resdeploy.calibration.job import Job
from resdeploy.calibration.layer_report import measured_layers
from resdeploy.calibration.ranges.ranges import StoredRanges, write_ranges
from resdeploy.calibration.reference import proofs_with
from resdeploy.calibration.repair.ladder import RepairState
from resdeploy.calibration.repair.recipes import Measurements
from resdeploy.deploy.bundle.bundle import (
    INT8_REPORT,
    RANGES,
    REFERENCE,
    describe_file,
    write_manifest,
)
from resdeploy.deploy.bundle.manifest import Manifest, graph_metadata
from resdeploy.deploy.bundle.reference import Reference, write_reference
from resdeploy.deploy.bundle.update import changed_bundle
from resdeploy.deploy.files import replaced_file
from resdeploy.deploy.specs import Variant
from resdeploy.deploy.system.memory import return_freed_memory
from resdeploy.deploy.targets import Target, is_int8
from resdeploy.deploy.verification.checks.promise import PROMISED
from resdeploy.export.graph.onnx_file import append_metadata, opset, save_graph


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        measurements: of the float graph; states: how each target was quantized.
        graphs: those that are published; calibration: the manifest's summary.
        promised: what each variant was measured to be (`deploy.verification.checks.promise`).
        reference: what replaces the bundle's, None to keep that.
    """

    measurements: Measurements
    states: Mapping[Target, RepairState]
    graphs: Mapping[Variant, onnx.ModelProto]
    calibration: Mapping[str, Any]
    promised: Mapping[str, Any]
    reference: Reference | None = None


def publish(job: Job, outcome: Outcome) -> Manifest:
    """Put the files into the bundle in one step; variants of an earlier run go."""
    job.bundle.file(REFERENCE)  # the new manifest vouches for it
    with changed_bundle(job.bundle) as folder:
        return _write(folder, job, outcome)


def _write(folder: Path, job: Job, outcome: Outcome) -> Manifest:
    """Write the new state into a folder that holds the old one."""
    manifest = job.bundle.manifest
    floats = {name: file for name, file in manifest.variants.items() if not is_int8(name)}
    proofs = dict(manifest.proofs)
    if outcome.reference is not None:
        proofs = proofs_with(job, outcome.reference)
        with replaced_file(folder / REFERENCE) as temporary:
            write_reference(temporary, outcome.reference)
    kept = {name: p for name, p in proofs.get(PROMISED, {}).items() if name in floats}
    proofs = {**proofs, PROMISED: {**kept, **outcome.promised}}
    manifest = replace(manifest, variants=floats, calibration=outcome.calibration, proofs=proofs)
    parent = manifest.variants["fp32"].sha256
    for name, graph in outcome.graphs.items():
        path = folder / f"{name}.onnx"
        with replaced_file(path) as temporary:
            version = opset(graph)
            del graph.metadata_props[:]
            save_graph(graph, temporary)
            entries = graph_metadata(manifest, name, opset=version, parent_sha256=parent)
            append_metadata(temporary, entries)
        manifest = manifest.with_variant(name, describe_file(path, opset=version, made_from="fp32"))
    ranges = {
        target.grid: outcome.measurements.observed.ranges(state.recipe.method, target)
        for target, state in outcome.states.items()
    }
    with replaced_file(folder / RANGES) as temporary:
        write_ranges(temporary, StoredRanges(job.key, job.measured, ranges))
    job.progress("measuring each layer for the report", 0, 0)
    return_freed_memory()
    _write_report(folder, outcome)
    manifest = write_manifest(folder, manifest)
    for name in set(job.bundle.manifest.variants) - set(manifest.variants):
        (folder / job.bundle.manifest.variants[name].file).unlink(missing_ok=True)
    return manifest


def _write_report(folder: Path, outcome: Outcome) -> None:
    """Keep, for `resdeploy inspect`, what the run did and how each layer came out."""
    path = folder / INT8_REPORT
    path.parent.mkdir(exist_ok=True)
    layers = measured_layers(folder, outcome.graphs, np.concatenate(outcome.measurements.held))
    shares = {t.variant: dict(state.shares) for t, state in outcome.states.items()}
    content = {"calibration": dict(outcome.calibration), "layers": layers, "shares": shares}
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
