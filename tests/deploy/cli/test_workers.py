"""Who works on the images: this process unless a cluster is asked for, and what a cluster needs."""

from pathlib import Path

import click
import pytest

from resdeploy.deploy.cli.options import Scoring
from resdeploy.deploy.cli.workers import (
    Asked,
    calibration_images,
    verification_images,
    written_by_cluster,
)

_HERE, _CLUSTER = Scoring("local", None), Scoring("ray", 2)


def test_by_default_the_images_stay_what_they_are(flower_bundle: Path, image_folder: Path) -> None:
    with verification_images(flower_bundle, str(image_folder), ("auto",), _HERE) as data:
        assert data == str(image_folder)
    with verification_images(flower_bundle, None, ("auto",), _HERE) as data:
        assert data is None
    with calibration_images(flower_bundle, "images.csv", 32, 0, _HERE) as found:
        assert found == Path("images.csv")


def test_a_cluster_needs_images_to_verify_on(flower_bundle: Path) -> None:
    with (
        pytest.raises(click.UsageError, match="--engine ray needs images: add --data"),
        verification_images(flower_bundle, None, ("auto",), _CLUSTER),
    ):
        pass


def test_parquet_holds_every_probability(flower_bundle: Path, tmp_path: Path) -> None:
    asked = Asked(flower_bundle, ("images",), None, "auto", 8, 5, min_probability=0.5)
    with pytest.raises(click.UsageError, match="leave out --min-probability"):
        written_by_cluster(asked, _CLUSTER, str(tmp_path / "answers"), as_json=False)
    assert not (tmp_path / "answers").exists()
