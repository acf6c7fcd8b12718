"""Readiness that does not lie, versions by folder, and replacement under requests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.errors import BackendError, InputError
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.repository import ModelState, Repository, sources
from resdeploy.deploy.serving.served_model import ServedModel

WriteBundle = Callable[..., Path]
MakeRepository = Callable[..., Repository]

_RED = np.zeros((1, 3, 8, 8), np.float32)
_RED[:, 0] = 1.0


def _answer(model: ServedModel) -> int:
    return int(model.batcher.submit(_RED).result(10).logits.argmax())


def _ask(repository: Repository, name: str, version: str = "") -> int:
    with repository.lease(name, version) as model:
        return _answer(model)


def _spoil(bundle: Path, write_bundle: WriteBundle, weights: Float32s) -> None:
    """Replace a bundle by one whose graph does not give the recorded logits."""
    other = write_bundle(bundle.with_name("other.bundle"), {"fp32": weights})
    shutil.copy(bundle / "reference.npz", other / "reference.npz")
    write_manifest(other, read_bundle(other).manifest)
    shutil.rmtree(bundle)
    other.rename(bundle)


def test_a_server_without_a_ready_model_is_not_ready(
    colours_bundle: Path, make_repository: MakeRepository
) -> None:
    assert not make_repository([], keep_going=True).all_ready()
    repository = make_repository([colours_bundle])
    assert not repository.all_ready()
    with pytest.raises(Refusal) as refusal:
        _ask(repository, "colours")
    assert refusal.value.reason == "not_ready"
    repository.load("colours")
    assert repository.all_ready() and repository.is_ready("colours", "1")
    assert _ask(repository, "colours") == 0
    assert repository.index() == (ModelState("colours", "1", "READY"),)


def test_a_failing_model_is_named_and_its_neighbour_answers(
    tmp_path: Path,
    colours_bundle: Path,
    write_bundle: WriteBundle,
    identity: Float32s,
    make_repository: MakeRepository,
) -> None:
    bad = write_bundle(tmp_path / "bad.bundle", {"fp32": identity})
    _spoil(bad, write_bundle, -identity)
    repository = make_repository([colours_bundle, bad])
    repository.load("colours")
    with pytest.raises(Refusal, match=r"bad.bundle: fp32 on ort-cpu gives other answers") as found:
        repository.load("bad")
    assert found.value.reason == "failed_check"
    assert not repository.is_ready("bad") and repository.is_ready("colours")
    assert not repository.all_ready()
    assert [state.state for state in repository.index()] == ["READY", "UNAVAILABLE"]
    patient = make_repository([colours_bundle, bad], keep_going=True)
    patient.load("colours")
    assert patient.all_ready()


def test_versions_are_numbered_folders_and_the_highest_answers(
    tmp_path: Path,
    write_bundle: WriteBundle,
    identity: Float32s,
    rotated: Float32s,
    make_repository: MakeRepository,
) -> None:
    folder = tmp_path / "colours"
    folder.mkdir()
    write_bundle(folder / "9", {"fp32": identity})
    repository = make_repository([folder])
    repository.load("colours")
    assert _ask(repository, "colours") == 0
    write_bundle(folder / "10", {"fp32": rotated})
    repository.refresh(watch=False)
    assert _ask(repository, "colours") == 0
    repository.refresh(watch=True)
    assert _ask(repository, "colours") == _ask(repository, "colours", "10") == 1
    assert _ask(repository, "colours", "9") == 0
    with pytest.raises(Refusal, match="no version '11'; it has 9, 10"):
        _ask(repository, "colours", "11")
    shutil.rmtree(folder / "10")
    repository.refresh(watch=True)
    assert _ask(repository, "colours") == 0
    assert [model.version for model in repository.ready_models()] == ["9"]


def test_the_old_state_answers_until_the_new_one_has_passed(
    colours_bundle: Path,
    write_bundle: WriteBundle,
    identity: Float32s,
    rotated: Float32s,
    make_repository: MakeRepository,
) -> None:
    repository = make_repository([colours_bundle])
    repository.load("colours")
    _spoil(colours_bundle, write_bundle, -identity)
    with pytest.raises(Refusal, match="other answers"):
        repository.load("colours")
    assert repository.all_ready() and _ask(repository, "colours") == 0
    assert "the version loaded before answers" in repository.index()[0].reason
    shutil.rmtree(colours_bundle)
    write_bundle(colours_bundle, {"fp32": rotated})
    with repository.lease("colours") as old:
        repository.load("colours")
        assert _ask(repository, "colours") == 1
        assert _answer(old) == 0  # still open for whoever had it
    assert repository.index() == (ModelState("colours", "1", "READY"),)


def test_unloaded_and_loaded_again(colours_bundle: Path, make_repository: MakeRepository) -> None:
    repository = make_repository([colours_bundle])
    repository.load("colours")
    repository.unload("colours")
    assert not repository.all_ready()
    assert repository.index() == (ModelState("colours", "1", "UNAVAILABLE", "unloaded"),)
    repository.refresh(watch=True)
    assert not repository.is_ready("colours")
    repository.load("colours")
    assert _ask(repository, "colours") == 0
    for ask in (repository.load, repository.unload, repository.is_ready):
        with pytest.raises(Refusal, match="no model 'flowers' here; there are colours"):
            ask("flowers")


def test_a_session_that_fails_is_not_ready_until_it_recovers(
    colours_bundle: Path, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make_repository([colours_bundle])
    repository.load("colours")

    def fail(batch: Float32s) -> Float32s:
        raise BackendError("ort-cpu: the device is gone")

    with repository.lease("colours") as model:
        monkeypatch.setattr(model._classifier, "logits", fail)
        with pytest.raises(BackendError):
            _answer(model)
    assert not repository.all_ready()
    assert repository.index()[0] == ModelState(
        "colours", "1", "UNAVAILABLE", "ort-cpu: the device is gone"
    )
    repository.refresh(watch=False)
    assert repository.all_ready() and _ask(repository, "colours") == 0


def test_names_come_from_the_folders(tmp_path: Path) -> None:
    found = sources([tmp_path / "a.bundle", tmp_path / "b.onnx"], ("fp32", "int8"))
    assert [(source.name, source.precision) for source in found] == [
        ("a", "fp32"),
        ("a-int8", "int8"),
        ("b", "fp32"),
        ("b-int8", "int8"),
    ]
    with pytest.raises(InputError, match="2 models named 'a': rename one of them"):
        sources([tmp_path / "a.bundle", tmp_path / "x" / "a.bundle"])
