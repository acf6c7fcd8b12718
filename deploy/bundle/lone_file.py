"""The manifest that a graph's metadata and an engine's sidecar carry, to predict without a bundle.

`resdeploy build` writes a sidecar's (`manifest_for_engine`); all else in it is `engine.sidecar`'s.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from resdeploy.deploy.bundle.loops import check_no_loops
from resdeploy.deploy.bundle.manifest import Manifest, manifest_of_graph
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.files import read_sealed
from resdeploy.deploy.optional import needs
from resdeploy.deploy.specs import Variant

SUFFIX = ".engine"
SIDECAR_SUFFIX = ".json"


def sidecar_path(engine: Path) -> Path:
    """`x.engine` has `x.json` beside it."""
    return engine.with_suffix(SIDECAR_SUFFIX)


def manifest_for_engine(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    """The part of a manifest that concerns an engine built of `variant`, as plain JSON values."""
    only = {variant: manifest.variants[variant]}
    own = replace(manifest, variants=only, calibration=None, files=None)
    fields: dict[str, Any] = json.loads(json.dumps(own.to_json()))
    return fields


def read_engine_manifest(engine: Path) -> Manifest:
    """Labels, preprocessing and all else that the sidecar of a lone engine says of its network.

    Raises:
        BundleError: no sidecar beside it, a damaged one, or one of an older resdeploy.
    """
    path = sidecar_path(engine)
    try:
        fields = read_sealed(path)
    except FileNotFoundError as error:
        raise BundleError(
            f"{engine}: no {path.name} beside it, which has its labels and preprocessing: copy "
            "that, too, or build the engine again with resdeploy build"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error}): build the engine again") from error
    found = fields.get("manifest")
    if found is None:
        raise BundleError(
            f"{engine}: its {path.name} has no labels and no preprocessing, being of an older "
            "resdeploy: build the engine again, or give the bundle it was built from"
        )
    manifest = Manifest.from_json(found, source=str(path))
    if len(manifest.variants) != 1:
        raise BundleError(
            f"{path}: {len(manifest.variants)} variants, expected the one that the engine was "
            "built of: build the engine again"
        )
    return manifest


def read_graph_manifest(path: Path) -> Manifest:
    """The manifest inside a lone ONNX file.

    Raises:
        BundleError: it carries none.
        MissingDependencyError: no ONNX Runtime, which reads it.
    """
    with needs("reading an ONNX file"):
        from resdeploy.deploy.ort import read_facts

    check_no_loops(path)
    facts = read_facts(path)
    manifest, _ = manifest_of_graph(facts.properties, path, facts.input, facts.output)
    return manifest
