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


def test_images_held_back_replace_built_in_ones(bundle: Path, image_folder: Path) -> None:
    before = read_reference(bundle / REFERENCE)
    report = quantize(bundle, image_folder)
    assert report.exit_code == 0
    (said,) = (note for note in report.notes if note.startswith("reference.npz now holds"))
    found = read_reference(bundle / REFERENCE)
    assert f"{len(found.inputs)} images held back from calibration" in said
    assert len(found.inputs) >= 12 and np.abs(found.inputs).max() < 3 < np.abs(before.inputs).max()
    with OrtSession(bundle / "fp32.onnx") as session:
        np.testing.assert_allclose(found.logits, session.run(found.inputs), atol=1e-4)
    manifest = read_bundle(bundle).manifest
    assert manifest.proofs["reference"]["image_source"] == "held back from calibration"
    verified = verify(bundle, backends=["ort-cpu"])
    assert verified.verdict == "pass", verified.reason
    assert "PyTorch" not in json.dumps(verified.to_json()["gates"])  # they are not its answers


def test_images_of_the_users_stay_the_reference(bundle: Path, image_folder: Path) -> None:
    proofs = {"parity": {"image_source": "data", "images": 4}}
    write_manifest(bundle, replace(read_bundle(bundle).manifest, proofs=proofs))
    before = (bundle / REFERENCE).read_bytes()
    quantize(bundle, image_folder, repair=False, force=True)
    assert (bundle / REFERENCE).read_bytes() == before
