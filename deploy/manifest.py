"""The manifest: what a bundle (or a lone ONNX file) is, as frozen dataclasses and as JSON.

A bundle stores it as `manifest.json`. Each ONNX file carries the part that concerns it in its
`metadata_props` (keys below, JSON values), so that a file without its bundle still predicts.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.preprocess import Preprocess
from resdeploy.deploy.specs import INPUT_NAME, OUTPUT_NAME, VARIANTS, TensorSpec, Variant

FORMAT_VERSION = 1

_CHUNK_BYTES = 1 << 20

_MODEL_TYPES = {
    "architecture": str,
    "parameters": int,
    "classes": (int, NoneType),
    "checkpoint_sha256": str,
}
_FILE_TYPES = {"file": str, "sha256": str, "bytes": int, "opset": int, "made_from": str}
_TYPES = {
    "labels": list,
    "assumptions": list,
    "variants": dict,
    "proofs": dict,
    "calibration": (dict, NoneType),
    "tools": dict,
}


@dataclass(frozen=True)
class ModelFacts:
    """What the network is. `classes` is None for a network without a head (pooled features)."""

    architecture: str
    parameters: int
    classes: int | None
    checkpoint_sha256: str


@dataclass(frozen=True)
class VariantFile:
    """One ONNX file of a bundle and what it was made from (a variant's name or "checkpoint")."""

    file: str
    sha256: str
    bytes: int
    opset: int
    made_from: str


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    `proofs` holds `batchnorm_fold`, `parity` and later ones; `calibration` the summary of the
    INT8 calibration or None; `tools` the versions of the libraries that took part.
    """

    model: ModelFacts
    input: TensorSpec
    output: TensorSpec
    preprocess: Preprocess
    labels: tuple[str, ...]
    variants: Mapping[Variant, VariantFile]
    assumptions: tuple[str, ...] = ()
    proofs: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def with_variant(self, name: Variant, file: VariantFile) -> "Manifest":
        """The same manifest with one variant added or replaced, in the order of `VARIANTS`."""
        variants = {**self.variants, name: file}
        return replace(self, variants={key: variants[key] for key in VARIANTS if key in variants})

    def to_json(self) -> dict[str, Any]:
        """Plain values in the order a reader wants them."""
        return {
            "format_version": self.format_version,
            "model": vars(self.model),
            "input": _spec_to_json(self.input),
            "output": _spec_to_json(self.output),
            "preprocess": self.preprocess.to_json(),
            "labels": list(self.labels),
            "assumptions": list(self.assumptions),
            "variants": {name: vars(file) for name, file in self.variants.items()},
            "proofs": dict(self.proofs),
            "calibration": None if self.calibration is None else dict(self.calibration),
            "tools": dict(self.tools),
        }

    @classmethod
    def from_json(cls, fields: Any, *, source: str) -> "Manifest":
        """Read what `to_json` writes.

        Raises:
            BundleError: of a newer format, or a field is missing, of the wrong type, or does not
                agree with the others.
        """
        try:
            version = _readable_version(fields["format_version"], source)
            _check_types(fields, _TYPES)
            return cls(
                model=ModelFacts(**_check_types(fields["model"], _MODEL_TYPES)),
                input=_spec_from_json(fields["input"]),
                output=_spec_from_json(fields["output"]),
                preprocess=Preprocess.from_json(fields["preprocess"], source="preprocess"),
                labels=tuple(str(label) for label in fields["labels"]),
                variants={
                    _variant(name): VariantFile(**_check_types(file, _FILE_TYPES))
                    for name, file in fields["variants"].items()
                },
                assumptions=tuple(fields["assumptions"]),
                proofs=fields["proofs"],
                calibration=fields["calibration"],
                tools=fields["tools"],
                format_version=version,
            )._checked()
        except (AttributeError, KeyError, TypeError, ValueError, InputError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else error
            raise BundleError(
                f"{source}: not a manifest this resdeploy can read ({reason}): export again"
            ) from error

    def _checked(self) -> "Manifest":
        """Return self, or raise ValueError where two fields contradict each other."""
        height, width = self.preprocess.input_size_px
        if self.input.shape != ("batch", 3, height, width):
            raise ValueError(
                f"input shape {self.input.shape}, but preprocessing makes {width}x{height} pixels"
            )
        classes = self.model.classes
        if len(self.output.shape) != 2 or classes not in (None, self.output.shape[1]):
            raise ValueError(f"output shape {self.output.shape}, but {classes} classes")
        if len(self.labels) != (classes or 0):
            raise ValueError(f"{len(self.labels)} labels for {classes} classes")
        for file in self.variants.values():
            if Path(file.file).name != file.file:
                raise ValueError(f"file {file.file!r} is not a name in the bundle's folder")
        return self


def graph_metadata(
    manifest: Manifest, variant: Variant, *, opset: int, parent_sha256: str
) -> dict[str, str]:
    """The `metadata_props` of one ONNX file: texts as they are, everything else as JSON."""
    return {
        "resdeploy_format_version": str(manifest.format_version),
        "architecture": manifest.model.architecture,
        "parameters": str(manifest.model.parameters),
        "classes": json.dumps(manifest.model.classes),
        "checkpoint_sha256": manifest.model.checkpoint_sha256,
        "labels": json.dumps(manifest.labels, ensure_ascii=False),
        "preprocess": json.dumps(manifest.preprocess.to_json()),
        "assumptions": json.dumps(manifest.assumptions, ensure_ascii=False),
        "proofs": json.dumps(manifest.proofs),
        "precision": variant.partition("-")[0],
        "variant": variant,
        "opset": str(opset),
        "parent_sha256": parent_sha256,
    }


def manifest_of_graph(
    properties: Mapping[str, str], path: Path, input: TensorSpec, output: TensorSpec, opset: int
) -> tuple[Manifest, Variant]:
    """The manifest a lone ONNX file carries in its `metadata_props`, and which variant it is.

    Raises:
        BundleError: the file was not written by resdeploy, or its metadata is damaged.
    """
    if "resdeploy_format_version" not in properties:
        raise BundleError(
            f"{path}: an ONNX file without resdeploy's metadata, so its preprocessing and labels "
            "are unknown; export it from its checkpoint with resdeploy export"
        )
    try:
        version = _readable_version(int(properties["resdeploy_format_version"]), str(path))
        variant = _variant(properties["variant"])
        fields = {
            "format_version": version,
            "model": {
                "architecture": properties["architecture"],
                "parameters": int(properties["parameters"]),
                "classes": json.loads(properties["classes"]),
                "checkpoint_sha256": properties["checkpoint_sha256"],
            },
            "input": _spec_to_json(input),
            "output": _spec_to_json(output),
            "preprocess": json.loads(properties["preprocess"]),
            "labels": json.loads(properties["labels"]),
            "assumptions": json.loads(properties["assumptions"]),
            "proofs": json.loads(properties["proofs"]),
            "variants": {
                variant: {
                    "file": path.name,
                    "sha256": sha256_file(path),
                    "bytes": path.stat().st_size,
                    "opset": opset,
                    "made_from": properties["parent_sha256"],
                }
            },
            "calibration": None,
            "tools": {},
        }
    except (KeyError, ValueError) as error:
        raise BundleError(
            f"{path}: resdeploy's metadata in it is damaged ({error!r}): export again"
        ) from error
    return Manifest.from_json(fields, source=str(path)), variant


def input_spec(height_px: int, width_px: int) -> TensorSpec:
    """The one input of every graph: (batch, 3, H, W) float32."""
    return TensorSpec(INPUT_NAME, ("batch", 3, height_px, width_px), "float32")


def output_spec(width: int) -> TensorSpec:
    """The one output of every graph: (batch, classes or features) float32."""
    return TensorSpec(OUTPUT_NAME, ("batch", width), "float32")


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _spec_to_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _spec_from_json(fields: Any) -> TensorSpec:
    _check_types(fields, {"name": str, "shape": list, "dtype": str})
    batch, *sizes = fields["shape"]
    if batch != "batch" or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"{fields['name']} of shape {fields['shape']}")
    return TensorSpec(fields["name"], (batch, *sizes), fields["dtype"])


def _readable_version(version: Any, source: str) -> int:
    if type(version) is not int or version < 1:
        raise ValueError(f"format version {version!r}")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{source}: format version {version}, this resdeploy reads up to {FORMAT_VERSION}: "
            "upgrade it with pip install -U resdeploy"
        )
    return version


def _variant(text: str) -> Variant:
    for name in VARIANTS:
        if name == text:
            return name
    raise ValueError(f"unknown variant {text!r}")


def _check_types(fields: Any, types: Mapping[str, Any]) -> Any:
    """`fields`, once it is an object whose named fields are of the types given."""
    if not isinstance(fields, dict):
        raise TypeError(f"{fields!r} where an object is expected")
    for name, kind in types.items():
        if not isinstance(fields[name], kind) or isinstance(fields[name], bool):
            raise TypeError(f"{name} is {fields[name]!r}")
    return fields
