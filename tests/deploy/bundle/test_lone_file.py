"""A lone graph, and an engine with its sidecar, tell of their network what the bundle told."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.lone_file import (
    manifest_for_engine,
    read_engine_manifest,
    read_graph_manifest,
)
from resdeploy.deploy.bundle.model import open_model, precisions_of
from resdeploy.deploy.errors import BundleError, GraphError, InputError
from resdeploy.deploy.files import sealed


def _engine(folder: Path, fields: dict[str, Any]) -> Path:
    """A lone engine with a sidecar of these fields."""
    engine = folder / "net.engine"
    engine.write_bytes(b"a plan")
    engine.with_suffix(".json").write_text(json.dumps(sealed(fields)))
    return engine


def test_labels_and_preprocessing_come_back(bundle: Path, tmp_path: Path) -> None:
    whole = read_bundle(bundle).manifest
    engine = _engine(tmp_path, {"manifest": manifest_for_engine(whole, "fp32")})
    found = read_engine_manifest(engine)
    for field in ("model", "input", "output", "preprocess", "labels", "assumptions", "proofs"):
        assert getattr(found, field) == getattr(whole, field)
    assert list(found.variants) == ["fp32"]

    model = open_model(engine)
    assert model.is_engine and model.bundle is None and model.precision == "fp32"
    assert precisions_of(model, ()) == ("fp32",)
    with pytest.raises(InputError, match=r"net\.engine: an engine, which TensorRT alone runs"):
        model.graph("fp32")
    assert not open_model(bundle).is_engine


def test_what_is_missing_or_damaged_is_named(bundle: Path, tmp_path: Path) -> None:
    engine = _engine(tmp_path, {})
    with pytest.raises(BundleError, match=r"its net\.json has no labels and no preprocessing"):
        open_model(engine)
    fields = manifest_for_engine(read_bundle(bundle).manifest, "fp32")
    two = {**fields["variants"], "fp16": fields["variants"]["fp32"]}
    for damaged, words in (
        ([], "not a manifest"),
        ({**fields, "labels": None}, "not a manifest"),
        ({**fields, "variants": {}}, "0 variants, expected the one"),
        ({**fields, "variants": two}, "2 variants, expected the one"),
    ):
        with pytest.raises(BundleError, match=words):
            open_model(_engine(tmp_path, {"manifest": damaged}))
    sidecar = engine.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace("fp32", "fp16"))
    with pytest.raises(BundleError, match=r"net\.json: cannot be read \(altered since"):
        open_model(engine)
    sidecar.unlink()
    with pytest.raises(BundleError, match=r"no net\.json beside it.*copy that, too"):
        open_model(engine)


def test_a_graph_carries_its_manifest(bundle: Path) -> None:
    found, whole = read_graph_manifest(bundle / "fp32.onnx"), read_bundle(bundle).manifest
    for field in ("model", "input", "output", "preprocess", "labels"):
        assert getattr(found, field) == getattr(whole, field)
    ((variant, file),) = found.variants.items()
    assert (variant, file.opset) == ("fp32", 17)
    assert file.bytes == (bundle / "fp32.onnx").stat().st_size


def test_files_that_are_not_ours(bundle: Path) -> None:
    file = bundle / "fp32.onnx"
    whole = file.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises((GraphError, BundleError), match=r"fp32\.onnx: ") as info:
            read_graph_manifest(file)
        assert "\n" not in str(info.value)
    graph = onnx.load_from_string(whole)
    graph.ClearField("metadata_props")
    onnx.save(graph, file)
    with pytest.raises(
        BundleError, match=r"fp32\.onnx: another tool's ONNX file, .* resdeploy adopt"
    ):
        read_graph_manifest(file)
