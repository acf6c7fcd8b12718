"""A version opens only when it answers as recorded, and says what it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.errors import BundleError
from resdeploy.deploy.serving.batching import BatchRecord, BatchRules
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.served_model import ServedModel, Source, fingerprint

WriteBundle = Callable[..., Path]


def _open(path: Path, records: list[BatchRecord] | None = None) -> ServedModel:
    kept = [] if records is None else records
    return ServedModel(
        Source("colours", path, "int8", "ort-cpu"),
        "3",
        path,
        rules=BatchRules(max_batch=4, max_wait_s=0),
        observe=lambda model, record: kept.append(record),
    )


def test_it_answers_and_tells_the_observer(colours_bundle: Path) -> None:
    records: list[BatchRecord] = []
    rows = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    model = _open(colours_bundle, records)
    logits = model.batcher.submit(rows).result(10).logits
    model.close()
    np.testing.assert_allclose(logits, rows.mean(axis=(2, 3)), rtol=1e-5)
    assert [record.rows for record in records] == [2]
    assert (model.name, model.version, model.max_batch) == ("colours", "3", 4)
    assert model.facts() == {"architecture": "tiny", "precision": "int8", "backend": "ort-cpu"}
    with pytest.raises(Refusal, match="being unloaded"):
        model.batcher.submit(rows)


def test_other_answers_than_recorded_are_not_served(
    colours_bundle: Path, write_bundle: WriteBundle, rotated: Float32s, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", {"fp32": rotated, "int8": rotated})
    shutil.copy(colours_bundle / "reference.npz", other / "reference.npz")
    write_manifest(other, read_bundle(other).manifest)
    with pytest.raises(BundleError, match="int8 on ort-cpu gives other answers than recorded"):
        _open(other)


def test_numbered_folders_are_versions_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "latest", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("a file is no version")
    source = Source("colours", tmp_path, None, "auto")
    assert list(source.versions().items()) == [("9", tmp_path / "9"), ("10", tmp_path / "10")]


def test_a_bundle_or_a_file_is_version_1(colours_bundle: Path) -> None:
    (colours_bundle / "5").mkdir()
    for path in (colours_bundle, colours_bundle / "fp32.onnx"):
        assert Source("colours", path, None, "auto").versions() == {"1": path}


def test_a_change_on_disk_changes_the_fingerprint(colours_bundle: Path) -> None:
    before = fingerprint(colours_bundle)
    assert before == fingerprint(colours_bundle) and len(before) >= 3
    shutil.copy(colours_bundle / "fp32.onnx", colours_bundle / "int8.onnx")
    assert fingerprint(colours_bundle) != before
    assert fingerprint(colours_bundle / "missing") == ()
    assert [name for name, *_ in fingerprint(colours_bundle / "fp32.onnx")] == ["fp32.onnx"]
