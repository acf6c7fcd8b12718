"""`--engine ray` gives what `--engine local` gives, from folders, lists and URIs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner

from resdeploy.deploy.cli.main import cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

_RAY = ("--engine", "ray", "--workers", "2")


def _json(*words: object, status: int = 0) -> Any:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


@pytest.fixture
def mixed(tmp_path: Path, image_folder: Path) -> Path:
    """24 images and one that cannot be read."""
    folder = tmp_path / "mixed"
    shutil.copytree(image_folder, folder)
    (folder / "bad.jpg").write_text("no image")
    return folder


def test_predict(tiny_bundle: Path, mixed: Path, tmp_path: Path) -> None:
    words = ("predict", tiny_bundle, mixed, "--batch", 3, "--json")
    expected = _json(*words, status=1)
    assert _json(*words, *_RAY, status=1) == expected
    fsspec.filesystem("memory").put(str(mixed), "/mixed", recursive=True)
    remote = ("predict", tiny_bundle, "memory://mixed", "--batch", 3, "--json")
    found = _json(*remote, *_RAY, status=1)
    assert [{**row, "path": str(mixed / Path(row["path"]).name)} for row in found] == expected


def test_predictions_as_parquet(tiny_bundle: Path, mixed: Path, tmp_path: Path, s3: str) -> None:
    import pyarrow.dataset as parquet

    output = tmp_path / "answers"
    words = ("predict", tiny_bundle, mixed, "--json", *_RAY, "--parquet", output)
    assert _json(*words, status=1) == {"parquet": str(output), "images": 25, "unreadable": 1}
    rows = parquet.dataset(output).to_table().sort_by("position").to_pylist()
    assert [row["position"] for row in rows] == list(range(25))
    for row, expected in zip(
        rows, _json("predict", tiny_bundle, mixed, "--json", status=1), strict=True
    ):
        assert row["path"] == expected["path"] and row["error"] == expected.get("error", "")
        answers = zip(row["labels"], row["indices"], row["probabilities"], strict=True)
        assert [
            dict(zip(("label", "index", "probability"), answer, strict=True)) for answer in answers
        ] == expected.get("predictions", [])
    again = CliRunner().invoke(cli, [str(word) for word in words])
    assert again.exit_code == 1 and "exists already" in str(again.exception)

    remote = ("predict", tiny_bundle, s3, "--json", *_RAY, "--parquet", "s3://photos/answers")
    assert _json(*remote)["unreadable"] == 0
    found = parquet.dataset("photos/answers", filesystem=fsspec.filesystem("s3")).to_table()
    assert sorted(found.column("position").to_pylist()) == list(range(24))
    assert found.column("path").to_pylist()[0].startswith("s3://photos/val/cut_")


def test_verify(tmp_path: Path, flower_bundle: Path, labelled: Path) -> None:
    bundle = tmp_path / "flowers.bundle"
    shutil.copytree(flower_bundle, bundle)
    words = ("verify", bundle, "--data", labelled, "--json")
    reports = [_json(*words), _json(*words, *_RAY)]
    for report in reports:
        del report["images"]["seconds"]
    assert reports[0] == reports[1]
    refused = CliRunner().invoke(cli, [str(w) for w in (*words, *_RAY, "--against", bundle)])
    assert refused.exit_code == 1 and "--against needs the images here" in str(refused.exception)


@pytest.fixture
def labelled(tmp_path: Path, image_folder: Path, flower_labels: list[str]) -> Path:
    """The images in class folders."""
    for number, image in enumerate(sorted(image_folder.iterdir())):
        folder = tmp_path / "labelled" / flower_labels[number % len(flower_labels)]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    return tmp_path / "labelled"


@pytest.fixture
def flower_labels(flower_bundle: Path) -> list[str]:
    manifest = json.loads((flower_bundle / "manifest.json").read_text())
    return list(manifest["labels"])


def test_quantize(
    tmp_path: Path, image_folder: Path, s3: str, write_flower_bundle: Callable[..., Path]
) -> None:
    options = ("--no-repair", "--method", "mse", "--images", 20, "--json")
    bundles = {}
    for name, calib, further in (("here", image_folder, ()), ("there", s3, _RAY)):
        bundles[name] = write_flower_bundle(tmp_path / f"{name}.bundle", 5)
        _json("quantize", bundles[name], "--calib", calib, *options, *further)
    here, there = (json.loads((b / "ranges.json").read_text()) for b in bundles.values())
    assert here == there
    import onnx

    for variant in ("int8", "int8-cpu"):
        graphs = [onnx.load(bundle / f"{variant}.onnx") for bundle in bundles.values()]
        for graph in graphs:
            del graph.metadata_props[:]
        assert graphs[0].SerializeToString() == graphs[1].SerializeToString()
