"""Trained ranges lie in the bundle under a hash, and belong to one graph."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.bundle.bundle import TRAINED_RANGES, Bundle, read_bundle, write_manifest
from resdeploy.deploy.bundle.manifest import Manifest
from resdeploy.deploy.bundle.trained_ranges import (
    TrainedRanges,
    read_trained_ranges,
    write_trained_ranges,
)
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.files import sha256_file

_RANGES = TrainedRanges(
    {"input": (-2.0, 2.5)}, {"w1": np.array([0.1, 0.25, 3.0], np.float32)}, ("nowhere.input",)
)


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Bundle:
    """The tiny bundle with `_RANGES` in it."""
    folder = Path(shutil.copytree(flower_bundle, tmp_path / "flowers.bundle"))
    write_manifest(folder, write_trained_ranges(folder, read_bundle(folder).manifest, _RANGES))
    return read_bundle(folder)


def test_what_is_written_is_read_bit_for_bit(bundle: Bundle) -> None:
    found = read_trained_ranges(bundle)
    assert found is not None
    assert (found.activations, found.unplaced) == (_RANGES.activations, _RANGES.unplaced)
    assert found.weights["w1"].dtype == np.float32
    np.testing.assert_array_equal(found.weights["w1"], _RANGES.weights["w1"])
    proof = bundle.manifest.proofs["trained_ranges"]
    assert (proof["activations"], proof["weights"], proof["unplaced"]) == (1, 1, 1)


def test_a_network_trained_without_them_has_none(flower_bundle: Path) -> None:
    assert read_trained_ranges(read_bundle(flower_bundle)) is None


def test_an_altered_or_missing_file_is_refused(bundle: Bundle) -> None:
    file = bundle.path / TRAINED_RANGES
    file.write_text(file.read_text().replace("2.5", "9.5"))
    with pytest.raises(BundleError, match="altered since it was written"):
        read_trained_ranges(bundle)
    file.unlink()
    with pytest.raises(BundleError, match="missing, though the manifest lists it"):
        read_trained_ranges(bundle)


def test_ranges_of_another_graph_and_other_content_are_refused(bundle: Bundle) -> None:
    file = bundle.path / TRAINED_RANGES
    document = json.loads(file.read_text())
    for content, message in (
        ({**document, "graph": "0" * 64}, "belongs to another fp32.onnx"),
        ({**document, "activations": {"input": 3}}, "cannot be read"),
        ([], "cannot be read"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(BundleError, match=message):
            read_trained_ranges(Bundle(bundle.path, _with_hash(bundle.manifest, file)))


def _with_hash(manifest: Manifest, file: Path) -> Manifest:
    """The manifest as if it had been written for this file."""
    proof = {**manifest.proofs["trained_ranges"], "sha256": sha256_file(file)}
    return replace(manifest, proofs={**manifest.proofs, "trained_ranges": proof})
