"""The manifest: what a bundle (or a lone ONNX file) is, as frozen dataclasses and as JSON.

A bundle stores it as `manifest.json`. Each ONNX file carries the part that concerns it in its
`metadata_props` (keys below, JSON values), so that a file without its bundle still predicts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

from resdeploy.deploy.bundle.spec_json import (
    check_types,
    features_from_json,
    hashes_from_json,
    outputs_of_graph,
    spec_from_json,
    spec_to_json,
    whole_number,
)
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.installation import upgrade_advice
from resdeploy.deploy.reading import parse_json
from resdeploy.deploy.specs import (
    INPUT_NAME,
    OUTPUT_NAME,
    VARIANTS,
    FeatureSpec,
    TensorSpec,
    Variant,
)

FORMAT_VERSION = 1


_MODEL_TYPES = {
    "architecture": str,
    "parameters": int,
    "classes": (int, NoneType),
    "checkpoint_sha256": str,
    "settings": dict,
    "arch": (str, NoneType),
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
    """What the network is.

    Attributes:
        classes: None for a network without a head (pooled features).
        settings: key -> value of what the weights do not tell, as the network was built: assumed,
            given by the user, told by a sidecar or decided by the batch norms.
        arch: the architecture that the user named, a name or `module:factory`; None: read from
            the tensors. Older bundles have neither.
    """

    architecture: str
    parameters: int
    classes: int | None
    checkpoint_sha256: str
    settings: Mapping[str, str] = field(default_factory=dict)
    arch: str | None = None


@dataclass(frozen=True)
class VariantFile:
    """One ONNX file of a bundle and what it was made from: a variant, "checkpoint" or "graph"."""

    file: str
    sha256: str
    bytes: int
    opset: int
    made_from: str


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    `proofs` holds `batchnorm_fold`, `parity` and later ones; `calibration` the summary of the
    INT8 calibration or None; `tools` the versions of the libraries that took part; `features` the
    outputs of a backbone, the last of which is `output`, empty for a classifier; `files` the
    SHA-256 of each file of the bundle that is no graph, by its path, None in older bundles.
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
    features: tuple[FeatureSpec, ...] = ()
    files: Mapping[str, str] | None = field(default=None, compare=False)
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
            "input": spec_to_json(self.input),
            "output": spec_to_json(self.output),
            **({"features": [vars(f) for f in self.features]} if self.features else {}),
            "preprocess": self.preprocess.to_json(),
            "labels": list(self.labels),
            "assumptions": list(self.assumptions),
            "variants": {name: vars(file) for name, file in self.variants.items()},
            **({} if self.files is None else {"files": dict(self.files)}),
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
            check_types(fields, _TYPES)
            return cls(
                model=_model_from_json(fields["model"]),
                input=spec_from_json(fields["input"]),
                output=spec_from_json(fields["output"]),
                preprocess=Preprocess.from_json(fields["preprocess"], source="preprocess"),
                labels=tuple(str(label) for label in fields["labels"]),
                variants={
                    _variant(name): VariantFile(**check_types(file, _FILE_TYPES))
                    for name, file in fields["variants"].items()
                },
                assumptions=tuple(fields["assumptions"]),
                proofs=fields["proofs"],
                calibration=fields["calibration"],
                tools=fields["tools"],
                features=features_from_json(fields.get("features", [])),
                files=hashes_from_json(fields.get("files")),
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
        if self.features:
            if classes is not None or self.features[-1].tensor != self.output:
                raise ValueError(f"output {self.output}, but features {self.features}")
        elif len(self.output.shape) != 2 or classes not in (None, self.output.shape[1]):
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
    named = {} if manifest.model.arch is None else {"arch": manifest.model.arch}
    return {
        "resdeploy_format_version": str(manifest.format_version),
        "architecture": manifest.model.architecture,
        "parameters": str(manifest.model.parameters),
        "classes": json.dumps(manifest.model.classes),
        "checkpoint_sha256": manifest.model.checkpoint_sha256,
        "settings": json.dumps(dict(manifest.model.settings)),
        **named,
        "labels": json.dumps(manifest.labels, ensure_ascii=False),
        **_features_property(manifest.features),
        "preprocess": json.dumps(manifest.preprocess.to_json()),
        "assumptions": json.dumps(manifest.assumptions, ensure_ascii=False),
        "proofs": json.dumps(manifest.proofs),
        "precision": variant.partition("-")[0],
        "variant": variant,
        "opset": str(opset),
        "parent_sha256": parent_sha256,
    }


def _features_property(features: tuple[FeatureSpec, ...]) -> dict[str, str]:
    return {"features": json.dumps([vars(f) for f in features])} if features else {}


_JSON_PROPERTIES = ("preprocess", "labels", "assumptions", "proofs")


def manifest_of_graph(
    properties: Mapping[str, str], path: Path, input: TensorSpec, output: TensorSpec
) -> tuple[Manifest, Variant]:
    """The manifest a lone ONNX file carries in its `metadata_props`, and which variant it is.

    Raises:
        BundleError: the file was not written by resdeploy, or its metadata is damaged.
    """
    if "resdeploy_format_version" not in properties:
        raise BundleError(
            f"{path}: another tool's ONNX file, whose preprocessing and labels are unknown; make "
            f"a bundle of it with resdeploy adopt {path}"
        )
    try:
        version = _readable_version(whole_number(properties["resdeploy_format_version"]), str(path))
        variant = _variant(properties["variant"])
        opset, parent = whole_number(properties.get("opset", "0")), properties["parent_sha256"]
        file = VariantFile(path.name, sha256_file(path), path.stat().st_size, opset, parent)
        fields = {
            "format_version": version,
            "model": {
                "architecture": properties["architecture"],
                "parameters": whole_number(properties["parameters"]),
                "classes": parse_json(properties["classes"]),
                "checkpoint_sha256": properties["checkpoint_sha256"],
                "settings": parse_json(properties.get("settings", "{}")),
                "arch": properties.get("arch"),
            },
            "input": spec_to_json(input),
            **outputs_of_graph(properties, output),
            **{key: parse_json(properties[key]) for key in _JSON_PROPERTIES},
            "variants": {variant: vars(file)},
            "calibration": None,
            "tools": {},
        }
    except (KeyError, TypeError, ValueError) as error:
        reason = f"resdeploy's metadata in it is damaged ({error!r})"
        raise BundleError(f"{path}: {reason}: export again") from error
    return Manifest.from_json(fields, source=str(path)), variant


def input_spec(height_px: int, width_px: int) -> TensorSpec:
    """The one input of every graph: (batch, 3, H, W) float32."""
    return TensorSpec(INPUT_NAME, ("batch", 3, height_px, width_px), "float32")


def output_spec(width: int) -> TensorSpec:
    """The one output of every graph: (batch, classes or features) float32."""
    return TensorSpec(OUTPUT_NAME, ("batch", width), "float32")


def _model_from_json(fields: Any) -> ModelFacts:
    if isinstance(fields, dict):  # older bundles do not say how the network was built
        fields = {"settings": {}, "arch": None, **fields}
    model = ModelFacts(**check_types(fields, _MODEL_TYPES))
    check_types(dict(model.settings), dict.fromkeys(model.settings, str))
    return model


def _readable_version(version: Any, source: str) -> int:
    if type(version) is not int or version < 1:
        raise ValueError(f"format version {version!r}")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{source}: format version {version}, this resdeploy reads up to {FORMAT_VERSION}: "
            + upgrade_advice()
        )
    return version


def _variant(text: str) -> Variant:
    for name in VARIANTS:
        if name == text:
            return name
    raise ValueError(f"unknown variant {text!r}")
