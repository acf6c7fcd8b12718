"""The manifest survives its round trips, and what is not a manifest is refused with one line."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.bundle.manifest import (
    FORMAT_VERSION,
    Manifest,
    ModelFacts,
    VariantFile,
    graph_metadata,
    input_spec,
    manifest_of_graph,
    output_spec,
)
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.specs import FeatureSpec

_FILE = VariantFile("fp32.onnx", "ab" * 32, 123, 17, "checkpoint")


def _manifest(classes: int | None = 3) -> Manifest:
    return Manifest(
        model=ModelFacts(
            "resnet18", 11_000_000, classes, "cd" * 32, {"stride": "1x1", "pool": "no"}, "resnet"
        ),
        input=input_spec(224, 224),
        output=output_spec(3),
        preprocess=named("imagenet"),
        labels=("daisy", "Löwenzahn", "roses") if classes else (),
        variants={"fp32": _FILE},
        assumptions=("stride is in the 3x3 convolution",),
        proofs={"batchnorm_fold": {"folded": 20, "left": 0, "max_abs": 1e-6}},
        tools={"torch": "2.15.0"},
    )


def _through_json(manifest: Manifest) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(json.dumps(manifest.to_json()))
    return fields


@pytest.mark.parametrize("classes", [3, None])
def test_json_round_trip(classes: int | None) -> None:
    manifest = _manifest(classes)
    assert Manifest.from_json(_through_json(manifest), source="m") == manifest


def test_older_manifests_do_not_say_how_the_network_was_built() -> None:
    fields = _through_json(_manifest())
    del fields["model"]["settings"], fields["model"]["arch"]
    model = Manifest.from_json(fields, source="m").model
    assert (model.architecture, model.settings, model.arch) == ("resnet18", {}, None)


def test_variants_stay_in_their_order() -> None:
    manifest = _manifest().with_variant("int8", _FILE).with_variant("fp16", _FILE)
    assert list(manifest.variants) == ["fp32", "fp16", "int8"]


def _changes() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Name of what is wrong -> what to do to the manifest's JSON."""
    return {
        "no field 'labels'": lambda m: m.pop("labels"),
        "no field 'format_version'": lambda m: m.pop("format_version"),
        "no field 'parameters'": lambda m: m["model"].pop("parameters"),
        "no field 'sha256'": lambda m: m["variants"]["fp32"].pop("sha256"),
        "format version '1'": lambda m: m.update(format_version="1"),
        "format version 0": lambda m: m.update(format_version=0),
        "labels is 'abc'": lambda m: m.update(labels="abc"),
        "classes is '3'": lambda m: m["model"].update(classes="3"),
        "parameters is True": lambda m: m["model"].update(parameters=True),
        "architecture is None": lambda m: m["model"].update(architecture=None),
        "pool is 1": lambda m: m["model"]["settings"].update(pool=1),
        "settings is \\[\\]": lambda m: m["model"].update(settings=[]),
        "arch is 3": lambda m: m["model"].update(arch=3),
        "bytes is '123'": lambda m: m["variants"]["fp32"].update(bytes="123"),
        "file is 7": lambda m: m["variants"]["fp32"].update(file=7),
        "not a name in the bundle": lambda m: m["variants"]["fp32"].update(file="../../x.onnx"),
        "proofs is \\[\\]": lambda m: m.update(proofs=[]),
        "calibration is 3": lambda m: m.update(calibration=3),
        "3 where an object is expected": lambda m: m.update(model=3),
        "unknown variant 'fp8'": lambda m: m["variants"].update(fp8=m["variants"]["fp32"]),
        "unexpected keyword argument": lambda m: m["model"].update(depth=18),
        "2 labels for 3 classes": lambda m: m.update(labels=["a", "b"]),
        "but 3 classes": lambda m: m["output"].update(shape=["batch", 4]),
        "but preprocessing makes 224x224": lambda m: m["input"].update(shape=["batch", 3, 32, 32]),
        "input of shape": lambda m: m["input"].update(shape=["batch", 3, "h", 32]),
        "preprocess: not a preprocessing": lambda m: m["preprocess"].pop("mean"),
    }


@pytest.mark.parametrize(("words", "change"), _changes().items(), ids=list(_changes()))
def test_wrong_fields_are_named_in_one_line(
    words: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    fields = copy.deepcopy(_through_json(_manifest()))
    change(fields)
    with pytest.raises(BundleError, match=words) as info:
        Manifest.from_json(fields, source="b/manifest.json")
    message = str(info.value)
    assert message.startswith("b/manifest.json: not a manifest this resdeploy can read")
    assert message.endswith("export again") and "\n" not in message


@pytest.mark.parametrize("content", [None, [], "manifest", 3])
def test_other_json_is_refused(content: object) -> None:
    with pytest.raises(BundleError, match="not a manifest"):
        Manifest.from_json(content, source="m")


def test_a_newer_format_is_told_from_a_damaged_one() -> None:
    with pytest.raises(BundleError, match=r"format version 2, .* up to 1: renew it with "):
        Manifest.from_json({"format_version": FORMAT_VERSION + 1, "other": []}, source="m")


# --- the part in an ONNX file


def test_metadata_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "renamed.onnx"
    path.write_bytes(b"graph")
    manifest = _manifest()
    properties = graph_metadata(manifest, "int8-cpu", opset=17, parent_sha256="ef" * 32)
    assert all(isinstance(text, str) for text in properties.values())
    found, variant = manifest_of_graph(properties, path, manifest.input, manifest.output)
    assert variant == "int8-cpu"
    assert found.variants == {
        "int8-cpu": VariantFile("renamed.onnx", sha256_file(path), 5, 17, "ef" * 32)
    }
    assert (found.model, found.labels, found.preprocess, found.proofs, found.assumptions) == (
        manifest.model,
        manifest.labels,
        manifest.preprocess,
        manifest.proofs,
        manifest.assumptions,
    )


def test_metadata_of_an_older_graph(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"graph")
    manifest = _manifest()
    properties = graph_metadata(manifest, "fp32", opset=17, parent_sha256="checkpoint")
    older = {key: text for key, text in properties.items() if key not in ("settings", "arch")}
    found, _ = manifest_of_graph(older, path, manifest.input, manifest.output)
    assert (found.model.settings, found.model.arch) == ({}, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resdeploy_format_version": None}, "another tool's ONNX file"),
        ({"resdeploy_format_version": "9", "variant": None}, "format version 9"),
        ({"resdeploy_format_version": "one"}, "damaged"),
        ({"variant": "fp8"}, "damaged"),
        ({"labels": None}, "damaged"),
        ({"labels": "[1"}, "damaged"),
        ({"labels": '["daisy"]'}, "1 labels for 3 classes"),
        ({"parameters": "many"}, "damaged"),
        ({"parameters": "9" * 5000}, "an integer of 5000 digits"),
        ({"opset": "seventeen"}, "damaged"),
        ({"preprocess": "{}"}, "not a preprocessing"),
    ],
)
def test_wrong_metadata(change: dict[str, str | None], words: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"graph")
    manifest = _manifest()
    properties = graph_metadata(manifest, "fp32", opset=17, parent_sha256="checkpoint")
    changed = {**properties, **change}
    kept = {key: text for key, text in changed.items() if text is not None}
    with pytest.raises(BundleError, match=words) as info:
        manifest_of_graph(kept, path, manifest.input, manifest.output)
    assert str(info.value).startswith(f"{path}: ") and "\n" not in str(info.value)


def _backbone() -> Manifest:
    features = (FeatureSpec("C4", 16, 24, 14, 14), FeatureSpec("C5", 32, 1280, 7, 7))
    return replace(_manifest(None), features=features, output=features[-1].tensor)


def test_a_backbone_keeps_its_feature_maps() -> None:
    written = json.loads(json.dumps(_backbone().to_json()))
    assert Manifest.from_json(written, source="m") == _backbone()
    assert "features" not in _manifest().to_json()


@pytest.mark.parametrize(
    "wrong", [{"features": [{"name": "C5"}]}, {"features": [3]}, {"features": []}]
)
def test_feature_maps_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="not a manifest this resdeploy can read"):
        Manifest.from_json({**_backbone().to_json(), **wrong}, source="m")
