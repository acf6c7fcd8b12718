"""Says what a path is: a bundle, an ONNX file, an engine or a checkpoint."""

from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.bundle import REFERENCE, read_bundle
from resdeploy.deploy.bundle.lone_file import SUFFIX, read_engine_manifest
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.engine.store import describe_engine
from resdeploy.deploy.errors import InputError, MissingDependencyError, ResdeployError
from resdeploy.deploy.images.files import find_images
from resdeploy.deploy.optional import needs

# what predicting with it rests on; the rest is told of the bundle it was built from
_OF_AN_ENGINE = ("architecture", "classes", "labels", "input", "output", "features", "preprocess")


def describe(path: Path, data: Path | None = None) -> dict[str, Any]:
    """Describe `path`: the first key is `kind`, the rest depends on it; values are plain JSON.

    With images in `data`, a checkpoint's batch norms say which preprocessing and settings fit.

    Raises:
        InputError: no such file; or `data` for anything but a checkpoint.
        ResdeployError: the file cannot be read as what it claims to be.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if data is not None:
        return _checkpoint_on(path, data)
    if path.is_dir() and not (path / "config.json").is_file():  # a model from a hub has one
        return _bundle(path)
    if path.suffix.lower() == ".onnx":
        return _graph(path)
    if path.suffix.lower() == SUFFIX:
        return _engine(path)
    with needs("inspecting a checkpoint"):
        from resdeploy.export.checkpoint.describe import describe_checkpoint
    return describe_checkpoint(path)


def _checkpoint_on(path: Path, data: Path) -> dict[str, Any]:
    if path.suffix.lower() in (".onnx", SUFFIX):
        raise InputError(f"{path}: --data is for checkpoints; check a bundle with resdeploy verify")
    with needs("comparing batch-norm statistics"):
        from resdeploy.export.proof.settle import describe_on_images
    return describe_on_images(path, find_images([data]))


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
            from resdeploy.export.graph.onnx_file import load_graph, operators, opset, parameters
    except MissingDependencyError as error:
        description["operators"] = str(error)
    else:
        model = load_graph(path)
        description |= {
            "opset": opset(model),
            "parameters": parameters(model),
            "inputs": [_argument(value) for value in model.graph.input],
            "outputs": [_argument(value) for value in model.graph.output],
            "operators": operators(model),
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


def _engine(path: Path) -> dict[str, Any]:
    """The sidecar; what it says of the network in the words used for bundles."""
    description = describe_engine(path)
    if description.pop("manifest") is None:
        return description
    facts = _facts(read_engine_manifest(path))
    return {**description, **{key: facts[key] for key in _OF_AN_ENGINE if key in facts}}


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "architecture": manifest.model.architecture,
        "parameters": manifest.model.parameters,
        "classes": manifest.model.classes,
        "labels": list(manifest.labels),
        "checkpoint_sha256": manifest.model.checkpoint_sha256,
        "arch": manifest.model.arch,
        "settings": dict(manifest.model.settings),
        "input": _tensor(manifest.input.name, manifest.input.shape, manifest.input.dtype),
        **_outputs(manifest),
        "preprocess": manifest.preprocess.to_json(),
        "assumptions": list(manifest.assumptions),
    }


def _outputs(manifest: Manifest) -> dict[str, Any]:
    """The output; of a backbone, its feature maps with their strides."""
    if manifest.features:
        return {"features": [vars(feature) for feature in manifest.features]}
    return {"output": _tensor(manifest.output.name, manifest.output.shape, manifest.output.dtype)}


def _argument(value: Any) -> str:
    dimensions = value.type.tensor_type.shape.dim
    return f"{value.name} ({', '.join(str(d.dim_param or d.dim_value) for d in dimensions)})"


def _tensor(name: str, shape: tuple[int | str, ...], dtype: str) -> str:
    return f"{name} {dtype} ({', '.join(map(str, shape))})"


def outputs_row(manifest: Manifest) -> tuple[str, str]:
    """What the network gives, as a row of a table."""
    if manifest.features:
        maps = [f"{f.name} {f.channels}x{f.height}x{f.width}" for f in manifest.features]
        return "feature maps", ", ".join(maps)
    if manifest.model.classes:
        return "classes", _some(manifest.labels)
    return "classes", "none: pooled features (--features C2,C3,C4,C5 gives a backbone's maps)"


def _some(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:5])
    return f"{len(labels)}: {shown}" + (", …" if len(labels) > 5 else "")
