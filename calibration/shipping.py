"""Puts the INT8 variants that may ship into the bundle, with what was measured: all or nothing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from resdeploy.calibration.layer_report import measured_layers
from resdeploy.calibration.plan import PlanTarget
from resdeploy.calibration.ranges import StoredRanges, write_ranges
from resdeploy.calibration.recipes import VARIANT_OF, Material
from resdeploy.calibration.repair import Climb
from resdeploy.calibration.statistics import GRIDS
from resdeploy.deploy.bundle import RANGES, REPORTS, describe_file, replaced_file, write_manifest
from resdeploy.deploy.int8_layers import REPORT
from resdeploy.deploy.manifest import Manifest, graph_metadata
from resdeploy.deploy.specs import Variant
from resdeploy.export.embed import append_metadata
from resdeploy.export.graph import opset, save_graph

if TYPE_CHECKING:
    from resdeploy.calibration.pipeline import Job


def ship(
    job: "Job",
    material: Material,
    climbs: Mapping[PlanTarget, Climb],
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
        GRIDS[target]: material.measure(False).ranges(climb.recipe.method, target)
        for target, climb in climbs.items()
    }
    with replaced_file(folder / RANGES) as temporary:
        write_ranges(temporary, StoredRanges(job.key, len(job.calibrate.paths), ranges))
    _write_report(job, material, climbs, graphs, calibration)
    write_manifest(folder, manifest)
    for name in set(job.bundle.manifest.variants) - set(manifest.variants):
        (folder / job.bundle.manifest.variants[name].file).unlink(missing_ok=True)
    return manifest


def _write_report(
    job: "Job",
    material: Material,
    climbs: Mapping[PlanTarget, Climb],
    graphs: Mapping[Variant, onnx.ModelProto],
    calibration: Mapping[str, Any],
) -> None:
    """Keep, for `resdeploy inspect`, what the run did and how each layer came out."""
    path = job.bundle.path / REPORTS / REPORT
    path.parent.mkdir(exist_ok=True)
    layers = measured_layers(job.bundle.path, graphs, np.concatenate(material.held))
    shares = {VARIANT_OF[t]: dict(climb.shares) for t, climb in climbs.items()}
    content = {"calibration": dict(calibration), "layers": layers, "shares": shares}
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
