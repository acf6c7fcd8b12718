"""The card says what the manifest and the last verification say, and obeys nothing in them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from resdeploy.deploy.bundle.bundle import read_bundle, save_in_bundle
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.verification.reports.model_card import model_card, read_verified


@pytest.fixture
def manifest(flower_bundle: Path) -> Manifest:
    return read_bundle(flower_bundle).manifest


def _verified(manifest: Manifest, **changes: object) -> dict[str, object]:
    row = {"backend": "ort-cpu", "images": 200, "top1": 85.5, "top1_ci95": [79.95, 89.71],
           "drop": 0.5, "drop_ci95": [-0.25, 1.5], "agreement": 99.5,
           "sha256": manifest.variants["fp32"].sha256}  # fmt: skip
    return {"reason": "PASSED 4 checks", "reference": "fp32 as recorded",
            "variants": {"fp32": {**row, **changes}}}  # fmt: skip


def test_figures_stand_with_their_intervals(manifest: Manifest) -> None:
    card = model_card(manifest, _verified(manifest), "me/flowers", license_id="apache-2.0")
    assert card.startswith("---\nlibrary_name: resdeploy\npipeline_tag: image-classification\n")
    assert "license: apache-2.0\n---" in card
    row = "| fp32 | ort-cpu | 200 | 85.50 (79.95 … 89.71) | 0.50 (-0.25 … 1.50) | 99.50 |"
    assert row in card
    assert "PASSED 4 checks. Compared with fp32 as recorded." in card
    assert "imagenet: shorter side to" in card and manifest.variants["fp32"].sha256 in card
    assert "- tulips\n" in card and 'load("hf://me/flowers")' in card


def test_figures_of_other_files_are_left_out(manifest: Manifest) -> None:
    card = model_card(manifest, _verified(manifest, sha256="0" * 64), "me/flowers")
    assert "85.50" not in card and "PASSED" not in card and "license:" not in card
    assert "1 of 1 results are of earlier files and left out." in card


def test_what_was_not_measured_is_said(manifest: Manifest, tmp_path: Path) -> None:
    assert read_verified(tmp_path) is None
    assert "Not measured on labelled images" in model_card(manifest, None, "me/flowers")


def test_what_verify_saved_is_read_unless_it_was_damaged(tiny_bundle: Path) -> None:
    save_in_bundle(tiny_bundle, "verify.json", {"reason": "PASSED"})
    assert read_verified(tiny_bundle) == {"reason": "PASSED"}
    file = tiny_bundle / "reports" / "verify.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "reason": "FAILED"}))
    assert read_verified(tiny_bundle) is None


def test_a_report_that_is_a_link_is_replaced_not_written_through(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    # so does the Hub's cache hold what it fetched
    blob = tmp_path / "blob"
    blob.write_text("fetched")
    (tiny_bundle / "reports").mkdir(exist_ok=True)
    (tiny_bundle / "reports" / "verify.json").symlink_to(blob)
    save_in_bundle(tiny_bundle, "verify.json", {"reason": "PASSED"})
    assert blob.read_text() == "fetched" and read_verified(tiny_bundle) == {"reason": "PASSED"}


def test_labels_are_texts_and_many_are_counted(manifest: Manifest) -> None:
    labels = ("<script>", "a|b\nc", "[x](http://y)", *(f"n{i}" for i in range(200)))
    card = model_card(replace(manifest, labels=labels), None, "me/flowers")
    assert "- \\<script\\>" in card and "- a\\|b c" in card and "- \\[x\\](http://y)" in card
    assert "- and 103 more" in card


@pytest.mark.parametrize("license_id", ["Apache 2", "mit\nx: y", "MIT"])
def test_a_licence_is_an_identifier(manifest: Manifest, license_id: str) -> None:
    with pytest.raises(InputError, match="is no licence as the Hub writes them"):
        model_card(manifest, None, "me/flowers", license_id=license_id)
