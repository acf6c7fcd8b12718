"""The manifest survives its round trips, and what is not a manifest is refused with one line."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.manifest import (
    FORMAT_VERSION,
    Manifest,
    ModelFacts,
    VariantFile,
    graph_metadata,
    input_spec,
    manifest_of_graph,
    output_spec,
    sha256_file,
)
from resdeploy.deploy.preprocess import named

_FILE = VariantFile("fp32.onnx", "ab" * 32, 123, 17, "checkpoint")


def _manifest(classes: int | None = 3) -> Manifest:
    return Manifest(
        model=ModelFacts("resnet18", 11_000_000, classes, "cd" * 32),
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
    with pytest.raises(BundleError, match=r"format version 2, .* up to 1: upgrade it with pip"):
        Manifest.from_json({"format_version": FORMAT_VERSION + 1, "other": []}, source="m")


# --- the part in an ONNX file


def test_metadata_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "renamed.onnx"
    path.write_bytes(b"graph")
    manifest = _manifest()
    properties = graph_metadata(manifest, "int8-cpu", opset=17, parent_sha256="ef" * 32)
    assert all(isinstance(text, str) for text in properties.values())
    found, variant = manifest_of_graph(properties, path, manifest.input, manifest.output, 17)
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resdeploy_format_version": None}, "without resdeploy's metadata"),
        ({"resdeploy_format_version": "9", "variant": None}, "format version 9"),
        ({"resdeploy_format_version": "one"}, "damaged"),
        ({"variant": "fp8"}, "damaged"),
        ({"labels": None}, "damaged"),
        ({"labels": "[1"}, "damaged"),
        ({"labels": '["daisy"]'}, "1 labels for 3 classes"),
        ({"parameters": "many"}, "damaged"),
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
        manifest_of_graph(kept, path, manifest.input, manifest.output, 17)
    assert str(info.value).startswith(f"{path}: ") and "\n" not in str(info.value)
