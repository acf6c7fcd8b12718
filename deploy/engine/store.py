"""Where a bundle's engines are, what they are called, and which of them fits this machine.

Engines live in the bundle's `engines/` folder (for a lone `x.onnx` in `x.engines/`), each with a
sidecar that says what it is for: `fp16-tensorrt-10.3.0-sm87.engine` and `….json`.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.bundle import ENGINES, bundle_of
from resdeploy.deploy.bundle.model import Model
from resdeploy.deploy.defaults import ENGINE_BATCH
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.sidecar import (
    Machine,
    Sidecar,
    misfit,
    read_plan,
    read_sidecar,
    remarks,
)
from resdeploy.deploy.errors import EngineError
from resdeploy.deploy.specs import Precision

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """An engine in its place. `reused` says that it was there already, built as asked."""

    path: Path
    sidecar: Sidecar
    reused: bool = False

    def to_json(self) -> dict[str, Any]:
        """What `resdeploy build --json` prints."""
        sidecar = self.sidecar
        return {
            "engine": str(self.path),
            "flavor": sidecar.machine.flavor,
            "version": sidecar.machine.version,
            "precision": sidecar.precision,
            "variant": sidecar.variant,
            "typing": sidecar.typing,
            "compute_capabilities": list(sidecar.compute_capabilities),
            "batch": vars(sidecar.options.batch),
            "seconds": sidecar.build_seconds,
            "bytes": sidecar.plan_bytes,
            "layers": sidecar.layers.to_json() if sidecar.layers else None,
            "convolutions": sidecar.convolutions.to_json() if sidecar.convolutions else None,
            "workspace_mib": sidecar.workspace_mib,
            "peak_memory_mib": sidecar.peak_memory_mib,
            "reused": self.reused,
        }


def find_engine(model: Model, precision: Precision, here: Machine) -> Engine:
    """The engine of this precision that fits `here`; the plan itself is not read yet.

    Of several that fit, built for other batch ranges say, it is the one built last. A lone engine
    is the only one that there is.

    Raises:
        EngineError: none was built, or those that are there do not fit; says what differs.
    """
    if model.is_engine:
        return _lone_engine(model.path, precision, here)
    folder = engines_folder(model)
    build = f"resdeploy build {model.path} --precision {precision} --flavor {here.flavor}"
    reasons = []
    found = folder.glob(f"{precision}-{here.flavor}-[0-9]*.engine")
    for path in sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name)):
        sidecar = read_sidecar(path)
        reason = misfit(sidecar, here) or _stale(model, sidecar)
        if reason is None:
            for remark in remarks(sidecar, here):
                _log.warning("%s: %s", path, remark)
            return Engine(path, sidecar, reused=True)
        reasons.append(f"{path}: {reason}")
    if reasons:
        raise EngineError(f"{'; '.join(sorted(reasons))}: run {build}")
    raise EngineError(f"{model.path}: no {precision} engine for {here.flavor} in it: run {build}")


def _lone_engine(path: Path, precision: Precision, here: Machine) -> Engine:
    sidecar = read_sidecar(path)
    if precision != sidecar.precision:
        raise EngineError(f"{path}: an engine of {sidecar.precision}, not of {precision}")
    if reason := misfit(sidecar, here):
        build = f"resdeploy build {bundle_of(path)} --precision {precision} --flavor {here.flavor}"
        raise EngineError(f"{path}: {reason}: build one here from its bundle: {build}")
    for remark in remarks(sidecar, here):
        _log.warning("%s: %s", path, remark)
    return Engine(path, sidecar, reused=True)


def engines_folder(model: Model) -> Path:
    """Where a bundle's or a lone ONNX file's engines are."""
    return model.path / ENGINES if model.bundle else model.path.with_suffix(f".{ENGINES}")


def engine_name(
    precision: Precision, machine: Machine, targets: tuple[str, ...], options: BuildOptions
) -> str:
    """E.g. `fp16-tensorrt-10.3.0-sm87.engine`; another batch range than the usual one is told."""
    target = "-".join(f"sm{text.replace('.', '')}" for text in targets)
    batch = options.batch
    extras = [
        *(["ampere-plus"] if options.hardware_compatible else []),
        *(["any-version"] if options.version_compatible else []),
        *([f"dla{options.dla_core}"] if options.dla_core is not None else []),
        *([f"batch{batch.min}-{batch.opt}-{batch.max}"] if batch != ENGINE_BATCH else []),
    ]
    return "-".join([precision, machine.flavor, machine.version, target, *extras]) + ".engine"


def describe_engine(path: Path) -> dict[str, Any]:
    """What `resdeploy inspect ENGINE` shows: the sidecar, and whether the plan is intact.

    Raises:
        EngineError: no sidecar beside it, or a damaged one.
    """
    sidecar = read_sidecar(path)
    try:
        read_plan(path)
        state = "intact"
    except EngineError as error:
        state = str(error).removeprefix(f"{path}: ")
    fields = sidecar.to_json()
    return {"kind": "TensorRT engine", "state": state, **fields}


def _stale(model: Model, sidecar: Sidecar) -> str | None:
    file = model.manifest.variants.get(sidecar.variant)
    if file is not None and file.sha256 == sidecar.graph_sha256:
        return None
    return f"built from another {sidecar.variant} graph than the bundle has now"
