"""Tensors and feature maps in a manifest, from plain JSON values and back, types checked."""

from collections.abc import Mapping
from typing import Any

from resdeploy.deploy.reading import parse_json
from resdeploy.deploy.specs import FeatureSpec, TensorSpec

_DIGITS_LIMIT = 20
_FEATURE_TYPES = {"name": str, "stride": int, "channels": int, "height": int, "width": int}


def spec_to_json(spec: TensorSpec) -> dict[str, Any]:
    """What `spec_from_json` reads."""
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def spec_from_json(fields: Any) -> TensorSpec:
    """Raises TypeError or ValueError for what is no tensor with a batch axis."""
    check_types(fields, {"name": str, "shape": list, "dtype": str})
    batch, *sizes = fields["shape"]
    if batch != "batch" or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"{fields['name']} of shape {fields['shape']}")
    return TensorSpec(fields["name"], (batch, *sizes), fields["dtype"])


def features_from_json(entries: Any) -> tuple[FeatureSpec, ...]:
    """A backbone's feature maps; raises TypeError for what is none."""
    return tuple(FeatureSpec(**check_types(entry, _FEATURE_TYPES)) for entry in entries)


def hashes_from_json(files: Any) -> Mapping[str, str] | None:
    """File to SHA-256, None where an older bundle lists none."""
    if files is None:
        return None
    hashes: Mapping[str, str] = check_types(dict(files), dict.fromkeys(files, str))
    return hashes


def outputs_of_graph(properties: Mapping[str, str], first: TensorSpec) -> dict[str, Any]:
    """The feature maps, and the output that stands for all: a backbone's last."""
    features = parse_json(properties.get("features", "[]"))
    output = features_from_json(features)[-1].tensor if features else first
    return {"output": spec_to_json(output), "features": features}


def whole_number(text: str) -> int:
    """A whole number of few digits."""
    if len(text) > _DIGITS_LIMIT:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def check_types(fields: Any, types: Mapping[str, Any]) -> Any:
    """`fields`, once it is an object whose named fields are of the types given."""
    if not isinstance(fields, dict):
        raise TypeError(f"{fields!r} where an object is expected")
    for name, kind in types.items():
        if not isinstance(fields[name], kind) or isinstance(fields[name], bool):
            raise TypeError(f"{name} is {fields[name]!r}")
    return fields
