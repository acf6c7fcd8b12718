"""Says what a path is: a bundle, an ONNX file, an engine, or (by resdeploy.export) a checkpoint."""

from importlib import import_module
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle import REFERENCE, read_bundle
from resdeploy.deploy.engine_store import describe_engine
from resdeploy.deploy.errors import InputError, MissingDependencyError, ResdeployError
from resdeploy.deploy.manifest import Manifest
from resdeploy.deploy.optional import needs
from resdeploy.deploy.session import open_model


def inspect(path: Path) -> dict[str, Any]:
    """Describe `path`: the first key is `kind`, the rest depends on it; values are plain JSON.

    Raises:
        ResdeployError: the file cannot be read as what it claims to be.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        return _bundle(path)
    if path.suffix.lower() == ".onnx":
        return _graph(path)
    if path.suffix.lower() == ".engine":
        return describe_engine(path)
    # A checkpoint needs torch, which lives above this package: named as text, not imported.
    with needs("inspecting a checkpoint"):
        describe = import_module("resdeploy.export.describe")
    description: dict[str, Any] = describe.describe_checkpoint(path)
    return description


def _bundle(path: Path) -> dict[str, Any]:
    bundle = read_bundle(path)
    manifest = bundle.manifest
    variants = {}
    for name, file in manifest.variants.items():
        try:
            bundle.graph(name)
            state = "intact"
        except ResdeployError as error:
            state = str(error)
        variants[name] = {
            "file": file.file,
            "bytes": file.bytes,
            "opset": file.opset,
            "made_from": file.made_from,
            "state": state,
        }
    return {
        "kind": "bundle",
        **_facts(manifest),
        "variants": variants,
        "proofs": dict(manifest.proofs),
        "calibration": None if manifest.calibration is None else dict(manifest.calibration),
        "reference": (path / REFERENCE).is_file(),
        "tools": dict(manifest.tools),
    }


def _graph(path: Path) -> dict[str, Any]:
    description: dict[str, Any] = {"kind": "ONNX graph", "bytes": path.stat().st_size}
    try:
        with needs("counting operators"):
            graph = import_module("resdeploy.export.graph")
    except MissingDependencyError as error:
        description["operators"] = str(error)
    else:
        model = graph.load_graph(path)
        description |= {
            "opset": graph.opset(model),
            "parameters": graph.parameters(model),
            "inputs": [_argument(value) for value in model.graph.input],
            "outputs": [_argument(value) for value in model.graph.output],
            "operators": graph.operators(model),
        }
    try:
        manifest = open_model(path).manifest
    except ResdeployError as error:
        return {**description, "resdeploy": str(error)}
    (variant,) = manifest.variants
    return {
        **description,
        "variant": variant,
        "made_from": manifest.variants[variant].made_from,
        **_facts(manifest),
        "proofs": dict(manifest.proofs),
    }


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "architecture": manifest.model.architecture,
        "parameters": manifest.model.parameters,
        "classes": manifest.model.classes,
        "labels": list(manifest.labels),
        "checkpoint_sha256": manifest.model.checkpoint_sha256,
        "input": _tensor(manifest.input.name, manifest.input.shape, manifest.input.dtype),
        "output": _tensor(manifest.output.name, manifest.output.shape, manifest.output.dtype),
        "preprocess": manifest.preprocess.to_json(),
        "assumptions": list(manifest.assumptions),
    }


def _argument(value: Any) -> str:
    dimensions = value.type.tensor_type.shape.dim
    return f"{value.name} ({', '.join(str(d.dim_param or d.dim_value) for d in dimensions)})"


def _tensor(name: str, shape: tuple[int | str, ...], dtype: str) -> str:
    return f"{name} {dtype} ({', '.join(map(str, shape))})"
