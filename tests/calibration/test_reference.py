"""A bundle exported without images verifies once it is quantized with some."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resdeploy.calibration import quantize
from resdeploy.deploy.bundle.bundle import REFERENCE, read_bundle, write_manifest
from resdeploy.deploy.bundle.reference import Reference, read_reference
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.inference.ort_session import OrtSession
from resdeploy.deploy.verification.verify import verify
from tests.builders import write_bundle
from tests.conftest import tiny_graph

_LABELS = ("a", "b", "c", "d", "e")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One with built-in images, as an export without images makes: far larger than photographs."""
    inputs = np.random.default_rng(0).normal(0, 40, (4, 3, 32, 32)).astype(np.float32)
    graph = tiny_graph()
    with OrtSession(graph.SerializeToString()) as session:
        logits = session.run(inputs)
    path = write_bundle(
        tmp_path / "net.bundle",
        {"fp32": graph},
        named("imagenet", 32),
        labels=_LABELS,
        reference=Reference(inputs, logits),
    )
    proofs = {"parity": {"image_source": "built-in", "images": 4}}
    write_manifest(path, replace(read_bundle(path).manifest, proofs=proofs))
    return path


def test_images_of_the_users_replace_built_in_ones(bundle: Path, image_folder: Path) -> None:
    before = read_reference(bundle / REFERENCE)
    report = quantize(bundle, image_folder)
    assert report.exit_code == 0
    (said,) = (note for note in report.notes if note.startswith("reference.npz now holds"))
    found = read_reference(bundle / REFERENCE)
    assert "24 calibration images" in said  # of so few, none are held back
    assert len(found.inputs) == 24 and np.abs(found.inputs).max() < 3 < np.abs(before.inputs).max()
    with OrtSession(bundle / "fp32.onnx") as session:
        np.testing.assert_allclose(found.logits, session.run(found.inputs), atol=1e-4)
    manifest = read_bundle(bundle).manifest
    assert manifest.proofs["reference"]["image_source"] == "calibration images"
    verified = verify(bundle, backends=["ort-cpu"])
    assert verified.verdict == "pass", verified.reason
    assert "PyTorch" not in json.dumps(verified.to_json()["gates"])  # they are not its answers


def test_images_of_the_users_stay_the_reference(bundle: Path, image_folder: Path) -> None:
    proofs = {"parity": {"image_source": "data", "images": 4}}
    write_manifest(bundle, replace(read_bundle(bundle).manifest, proofs=proofs))
    before = (bundle / REFERENCE).read_bytes()
    quantize(bundle, image_folder, repair=False, force=True)
    assert (bundle / REFERENCE).read_bytes() == before


@pytest.mark.parametrize("labelled", [False, True])
def test_three_images_are_not_called_held_back(
    bundle: Path, image_folder: Path, tmp_path: Path, labelled: bool
) -> None:
    data = tmp_path / "data"
    for name, image in zip(_LABELS, sorted(image_folder.iterdir()), strict=False):
        (data / name).mkdir(parents=True)
        (data / name / image.name).symlink_to(image)
    report = quantize(
        bundle, image_folder, images=3, repair=False, force=True, data=data if labelled else None
    )
    told = "\n".join(report.notes)
    assert "only 3 calibration images" in told
    assert "reference.npz now holds 3 calibration images" in told and "held back" not in told
    assert ("the accuracy below is on the calibration images" in told) is not labelled
    assert ("repairs are judged on the calibration images" in told) is labelled
    assert read_bundle(bundle).manifest.proofs["reference"]["image_source"] == "calibration images"
