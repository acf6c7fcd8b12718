"""The report of an export as JSON: the bundle, what the manifest says of it, the accuracies."""

from pathlib import Path

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.export.report import ExportReport


def test_the_json_has_the_manifests_facts_and_the_accuracies(flower_bundle: Path) -> None:
    manifest = read_bundle(flower_bundle).manifest
    printed = ExportReport(flower_bundle, manifest, {"fp32": 86.1}).to_json()
    assert printed["bundle"] == str(flower_bundle)
    assert (printed["architecture"], printed["classes"]) == ("tiny", 5)
    assert printed["accuracy"] == {"fp32": 86.1}
    assert printed["labels"] == list(manifest.labels)
    assert printed["variants"]["fp32"]["sha256"] == manifest.variants["fp32"].sha256
    assert {"preprocess", "assumptions", "proofs"} < set(printed)
