"""The metadata of a model are its bundle's names and sizes, with -1 for the batch axis."""

from collections.abc import Callable
from pathlib import Path

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.describe import model_metadata, versions_of


def test_metadata_name_what_goes_in_and_comes_out(
    make_service: Callable[..., Service], colours_bundle: Path
) -> None:
    with make_service([colours_bundle]).repository.lease("colours") as model:
        assert model_metadata(model, ["1"]) == {
            "name": "colours",
            "versions": ["1"],
            "platform": "resdeploy_ort-cpu",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 8, 8]}],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
        }


def test_versions_are_those_that_answer(
    make_service: Callable[..., Service],
    write_bundle: Callable[..., Path],
    identity: Float32s,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "colours"
    folder.mkdir()
    for version in ("2", "10"):
        write_bundle(folder / version, {"fp32": identity})
    repository = make_service([folder]).repository
    assert versions_of(repository, "colours") == ["2", "10"]
    assert versions_of(repository, "other") == []
    repository.unload("colours")
    assert versions_of(repository, "colours") == []
