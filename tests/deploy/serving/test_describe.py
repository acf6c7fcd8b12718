"""The metadata of a model are its bundle's names and sizes, with -1 for the batch axis."""

from collections.abc import Callable
from pathlib import Path

import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.describe import model_metadata, news, versions_of
from resdeploy.deploy.serving.refusal import Refusal


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


@pytest.fixture
def write_version(
    write_bundle: Callable[..., Path], identity: Float32s, tmp_path: Path
) -> Callable[[str], Path]:
    """Writes a version of the model "colours" and gives its bundle."""
    folder = tmp_path / "colours"
    folder.mkdir()
    return lambda version: write_bundle(folder / version, {"fp32": identity})


def test_versions_are_those_that_answer(
    make_service: Callable[..., Service], write_version: Callable[[str], Path]
) -> None:
    write_version("2")
    repository = make_service([write_version("10").parent]).repository
    assert versions_of(repository, "colours") == ["2", "10"]
    assert versions_of(repository, "other") == []
    repository.unload("colours")
    assert versions_of(repository, "colours") == []


def test_what_changes_is_told_once(
    make_service: Callable[..., Service], write_version: Callable[[str], Path]
) -> None:
    first = write_version("1")
    repository = make_service([first.parent]).repository
    seen = [news(repository)]

    def fresh() -> list[str]:
        seen.append(news(repository))
        return [text for what, text in seen[-1].items() if what not in seen[-2]]

    assert [*seen[0].values()] == ["ready: colours version 1, fp32 on ort-cpu"] and fresh() == []
    repository.load("colours")  # anew
    assert fresh() == ["ready: colours version 1, fp32 on ort-cpu"]
    second = write_version("2")
    for bundle in (first, second):
        (bundle / "fp32.onnx").write_bytes(b"")
    with pytest.raises(Refusal):
        repository.load("colours")
    kept, missing = fresh()
    assert kept.startswith("not loaded again: colours version 1: the version loaded before answers")
    assert missing.startswith("not served: colours version 2: ") and "fp32.onnx" in missing
    repository.unload("colours")
    assert "not served: colours version 1: unloaded" in fresh()
